"""Normalisations that can lose features and still divide by their original number."""

from __future__ import annotations

import torch
from torch import nn

from compressor.nn.group_norm import INSTANCE_NORMS, WideGroupNorm
from compressor.nn.norm import WideLayerNorm
from compressor.nn.own_code import has_own_forward
from compressor.nn.own_norm import WideOwnNorm, own_norm
from compressor.nn.rms_norm import WideRMSNorm

WideNorm = WideLayerNorm | WideGroupNorm | WideRMSNorm | WideOwnNorm
WIDE_NORMS = (WideLayerNorm, WideGroupNorm, WideRMSNorm, WideOwnNorm)


def has_wide_form(module: nn.Module) -> bool:
    """Whether it is a normalisation whose statistics run over features that may go, of PyTorch's or of its own code.

    An `nn.InstanceNorm` with weights or running statistics can be cut as it is.
    """
    if has_own_forward(module):
        return own_norm(module) is not None
    if isinstance(module, INSTANCE_NORMS):
        return module.weight is None and module.running_mean is None
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))


def widened(module: nn.Module) -> WideNorm:
    """The same function, able to lose features.

    Raises:
        SurgeryError: It normalises over several axes.
    """
    if has_own_forward(module):
        return WideOwnNorm.from_module(module)
    if isinstance(module, nn.LayerNorm):
        return WideLayerNorm.from_module(module, torch.ones(module.normalized_shape, dtype=torch.bool))
    if isinstance(module, nn.RMSNorm):
        return WideRMSNorm.from_module(module)
    return WideGroupNorm.from_module(module)
