"""Layers of this package that replace layers of PyTorch, and the records that say so.

A record is `{"kind": "replace", "module": "encoder.rnn", "with": "uneven_recurrent", "record": {...}}`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import CheckpointError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.attention.pooling import PoolingReplacement
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.norm import WideLayerNorm
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent

if TYPE_CHECKING:
    from collections.abc import Mapping

REPLACE = "replace"
"""The kind of the records."""

Layer = (
    UnevenRecurrent
    | CompactMultiheadAttention
    | WideLayerNorm
    | RecurrentStack
    | LowRankLinear
    | LowRankRecurrent
    | AarenAttention
    | LearnedQuery
    | PoolingReplacement
)

LAYERS: dict[str, type[Layer]] = {
    "uneven_recurrent": UnevenRecurrent,
    "compact_attention": CompactMultiheadAttention,
    "wide_layer_norm": WideLayerNorm,
    "recurrent_stack": RecurrentStack,
    "aaren": AarenAttention,
    "learned_query": LearnedQuery,
    "pooling": PoolingReplacement,
    "low_rank_linear": LowRankLinear,
    "low_rank_recurrent": LowRankRecurrent,
}
"""The word after `with` -> the class."""
_PREDECESSORS: dict[type[nn.Module], type[nn.Module] | tuple[type[nn.Module], ...]] = {
    UnevenRecurrent: nn.RNNBase,
    CompactMultiheadAttention: nn.MultiheadAttention,
    WideLayerNorm: nn.LayerNorm,
    RecurrentStack: nn.RNNBase,
    AarenAttention: (nn.MultiheadAttention, CompactMultiheadAttention),
    LearnedQuery: nn.Linear,
    PoolingReplacement: nn.Module,  # a pooling is code of the user's, of any class
    LowRankLinear: nn.Linear,
    LowRankRecurrent: nn.RNNBase,
}
_KEYS = {"kind", "module", "with", "record"}


def full_name(module: str, local: str) -> str:
    """The name that something called `local` inside of a module has in the whole model."""
    return f"{module}.{local}" if module else local


def with_holders(name: str) -> tuple[str, ...]:
    """A name and those of the modules that hold it: `a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return tuple(".".join(parts[:end]) for end in range(len(parts), 0, -1))


def parameter_owners(model: nn.Module) -> dict[int, list[str]]:
    """Identity of a parameter -> the names of the modules that hold it."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    return owners


def replace_record(name: str, layer: Layer) -> dict[str, Any]:
    """The JSON record which says that the module called `name` is now `layer`."""
    word = next(word for word, cls in LAYERS.items() if type(layer) is cls)
    return {"kind": REPLACE, "module": name, "with": word, "record": layer.record()}


def apply_record(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Put the layer that a record describes into `model`, in place; that layer's weights are undefined afterwards.

    It gets the device, the type and the mode (training or evaluation) of the module that it replaces; device and type
    are the model's where that module has no parameters.

    Raises:
        CheckpointError: The record is not valid or does not fit the model.
    """
    if set(record) != _KEYS or record["kind"] != REPLACE:
        raise CheckpointError(
            f"a record of a replaced layer has the keys {sorted(map(str, record))}, not {sorted(_KEYS)}",
            hint="load it with the version that wrote it",
        )
    name, word = record["module"], record["with"]
    cls = LAYERS.get(word) if isinstance(word, str) else None
    if cls is None:
        raise CheckpointError(
            f"the record replaces a module by {word!r}, which this version does not know",
            hint="load it with the version that wrote it",
        )
    old = _find(model, name, cls)
    tensor = next(old.parameters(), next(model.parameters(), None))
    device, dtype = (None, None) if tensor is None else (tensor.device, tensor.dtype)
    new = cls.from_record(record["record"], device=device, dtype=dtype)
    replace_module(model, name, new.train(old.training))


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` wherever `model` holds the module called `name`, in place.

    Encoders of PyTorch around an attention that is replaced stop looking for their fused kernel, which would feed it
    nested tensors.

    Raises:
        KeyError: `name` is empty: the model itself cannot be replaced inside itself.
    """
    if not name:
        raise KeyError("the model itself cannot be replaced in place")
    old = model.get_submodule(name)
    for parent in list(model.modules()):
        for attribute, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, attribute, new)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and _holds(module, new):
            module.use_nested_tensor = False


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(child is part for child in module.modules())


def _find(model: nn.Module, name: Any, cls: type[Layer]) -> nn.Module:
    """The module that is replaced; it has to be of the kind that `cls` stands in for."""
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    old = modules.get(name) if isinstance(name, str) and name else None
    if not isinstance(old, (cls, _PREDECESSORS[cls])):
        found = "no module" if old is None else f"a `{type(old).__name__}`"
        raise CheckpointError(
            f"the record puts a `{cls.__name__}` in place of `{name}`, which is {found} in this model",
            hint="load it with the task that it was made from",
        )
    return old
