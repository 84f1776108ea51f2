"""Normalisations that can lose features and still divide by their original number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from compressor.nn.group_norm import INSTANCE_NORMS, WideGroupNorm
from compressor.nn.norm import WideLayerNorm
from compressor.nn.rms_norm import WideRMSNorm

if TYPE_CHECKING:
    from typing import TypeGuard

WideNorm = WideLayerNorm | WideGroupNorm | WideRMSNorm
WIDE_NORMS = (WideLayerNorm, WideGroupNorm, WideRMSNorm)


def has_wide_form(module: nn.Module) -> TypeGuard[nn.LayerNorm | nn.GroupNorm | nn.RMSNorm]:
    """Whether it is a normalisation of PyTorch's whose statistics run over features that may go.

    An `nn.InstanceNorm` with weights or running statistics can be cut as it is.
    """
    if isinstance(module, INSTANCE_NORMS):
        return module.weight is None and module.running_mean is None
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))


def widened(module: nn.Module) -> WideNorm:
    """The same function, able to lose features.

    Raises:
        SurgeryError: It normalises over several axes.
    """
    if isinstance(module, nn.LayerNorm):
        return WideLayerNorm.from_module(module, torch.ones(module.normalized_shape, dtype=torch.bool))
    return WideRMSNorm.from_module(module) if isinstance(module, nn.RMSNorm) else WideGroupNorm.from_module(module)
