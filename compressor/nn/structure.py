"""Layers of this package that replace layers of PyTorch, and the records that say so.

A record is `{"kind": "replace", "module": "encoder.rnn", "with": "uneven_recurrent", "record": {...}}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.attention.pooling import PoolingReplacement
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.group_norm import INSTANCE_NORMS, WideGroupNorm
from compressor.nn.norm import WideLayerNorm
from compressor.nn.own_norm import WideOwnNorm
from compressor.nn.record import of_another_task, of_another_version
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.layers import LAYERS as RECURRENT_LAYERS
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.nn.rms_norm import WideRMSNorm
from compressor.nn.seams import mark, seam_of

if TYPE_CHECKING:
    from collections.abc import Mapping

REPLACE = "replace"
"""The kind of the records."""

Layer = (
    UnevenRecurrent
    | CompactMultiheadAttention
    | WideLayerNorm
    | WideGroupNorm
    | WideRMSNorm
    | WideOwnNorm
    | RecurrentStack
    | LowRankLinear
    | LowRankRecurrent
    | AarenAttention
    | LearnedQuery
    | PoolingReplacement
    | ConvertedRecurrent
)

_Kinds = tuple[type[nn.Module], ...]
LAYERS: dict[str, tuple[type[Layer], _Kinds]] = {
    "uneven_recurrent": (UnevenRecurrent, RECURRENT_LAYERS),
    "compact_attention": (CompactMultiheadAttention, (nn.MultiheadAttention,)),
    "wide_layer_norm": (WideLayerNorm, (nn.LayerNorm,)),
    "wide_group_norm": (WideGroupNorm, (nn.GroupNorm, *INSTANCE_NORMS)),
    "wide_rms_norm": (WideRMSNorm, (nn.RMSNorm,)),
    "wide_own_norm": (WideOwnNorm, (nn.Module,)),  # it replaces a module of the model's own code, of any class
    "recurrent_stack": (RecurrentStack, RECURRENT_LAYERS),
    "aaren": (AarenAttention, (nn.MultiheadAttention, CompactMultiheadAttention)),
    "learned_query": (LearnedQuery, (nn.Linear,)),
    "pooling": (PoolingReplacement, (nn.Module,)),  # it replaces third-party code, of any class
    "converted_recurrent": (ConvertedRecurrent, (*RECURRENT_LAYERS, UnevenRecurrent)),
    "low_rank_linear": (LowRankLinear, (nn.Linear,)),
    "low_rank_recurrent": (LowRankRecurrent, RECURRENT_LAYERS),
}
"""The word after `with` -> the class, and what it may replace beside its own kind."""
_KEYS = {"kind", "module", "with", "record"}


def replace_record(name: str, layer: Layer) -> dict[str, Any]:
    """The JSON record which says that the module called `name` is now `layer`."""
    word = next(word for word, (cls, _) in LAYERS.items() if type(layer) is cls)
    return {"kind": REPLACE, "module": name, "with": word, "record": layer.record()}


def apply_record(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Put the layer that a record describes into `model`, in place; that layer's weights are undefined afterwards.

    It gets the device, the type and the mode (training or evaluation) of the module that it replaces; device and type
    are the model's if that module has no parameters.

    Raises:
        CheckpointError: The record is not valid or does not fit the model.
    """
    if set(record) != _KEYS or record["kind"] != REPLACE:
        raise of_another_version(
            f"a record of a replaced layer has the keys {sorted(map(str, record))}, not {sorted(_KEYS)}"
        )
    name, word = record["module"], record["with"]
    entry = LAYERS.get(word) if isinstance(word, str) else None
    if entry is None:
        raise of_another_version(f"the record replaces a module by {word!r}, which this version does not know")
    cls, replaced = entry
    old = _find(model, name, cls, replaced)
    tensor = next(old.parameters(), next(model.parameters(), None))
    device, dtype = (None, None) if tensor is None else (tensor.device, tensor.dtype)
    new = cls.from_record(record["record"], device=device, dtype=dtype)
    replace_module(model, name, new.train(old.training))


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` wherever `model` holds the module called `name`, in place; one that is a file of its own stays so.

    Encoders of PyTorch around an attention that is replaced stop looking for their fused kernel, which would feed it
    nested tensors.

    Raises:
        KeyError: `name` is empty: the model itself cannot be replaced inside itself.
    """
    if not name:
        raise KeyError("the model itself cannot be replaced in place")
    old = model.get_submodule(name)
    seam = seam_of(old)
    if seam is not None:
        mark(new).cuts = seam.cuts
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, attribute, new)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and _holds(module, new):
            module.use_nested_tensor = False


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(child is part for child in module.modules())


def _find(model: nn.Module, name: Any, cls: type[Layer], replaced: _Kinds) -> nn.Module:
    """The module that is replaced; it has to be of the kind that `cls` replaces."""
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    old = modules.get(name) if isinstance(name, str) and name else None
    if old is None or not isinstance(old, (cls, *replaced)):
        kind = "no module" if old is None else f"a `{type(old).__name__}`"
        raise of_another_task(f"the record replaces `{name}` by a `{cls.__name__}`, and that is {kind} in this model")
    return old
