"""Chains: which layers of a stack run, in which order, some of them several times; and how a model is given one.

A chain such as (0, 1, 1, 4) leaves layers out, repeats and reorders them. A layer that is repeated is a module of its
own in each place, with its own buffers, states and caches; the places share its weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from torch import Tensor, nn

from compressor.nn.record import LayerRecord, of_another_task, parse
from compressor.nn.recurrent.layers import cell_of, directions, is_layer, parts
from compressor.nn.structure import replace_module
from compressor.surgery.depth.stacks import CONTAINERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KIND = "chain"
"""Of the records: `{"kind": "chain", "module": "layers", "first": 0, "count": 6, "chain": [0, 1, 1, 4]}`."""
Chain = tuple[int, ...]
"""Numbers of the layers of a stack, the first one 0, in the order in which they run."""
_ENCODERS = (nn.TransformerEncoder, nn.TransformerDecoder)


@dataclass(frozen=True)
class Site:
    """Layers of a stack that a chain may choose from."""

    name: str
    """Of the list or of the recurrent module."""
    first: int
    """Place of the first one in the list; 0 in a recurrent module."""
    count: int
    pinned: bool = False
    """The first layer reads another number of inputs: it stays where it is."""

    @property
    def whole(self) -> Chain:
        """Every layer once, in order."""
        return tuple(range(self.count))

    def allows(self, chain: Chain) -> bool:
        """Whether the layers fit behind each other so."""
        return bool(chain) and (not self.pinned or (chain[0] == 0 and 0 not in chain[1:]))

    def record(self, chain: Chain) -> dict[str, Any]:
        """The JSON record of a chain."""
        return {"kind": KIND, "module": self.name, "first": self.first, "count": self.count, "chain": list(chain)}


def arrange(model: nn.Module, site: Site, chain: Chain) -> None:
    """Let the layers of a stack run as a chain says, in place."""
    module = model.get_submodule(site.name)
    if is_layer(module):
        replace_module(model, site.name, _recurrent(module, chain))
        return
    before = [(name, layer) for name, layer in module._modules.items() if layer is not None]
    inside = before[site.first : site.first + site.count]
    indices = _index_attributes([layer for _, layer in inside], site.first)
    layers = list(_separate([inside[number][1] for number in chain]))
    names = _names([inside[number][0] for number in chain])
    number_layers(
        model, module, [*before[: site.first], *zip(names, layers, strict=True), *before[site.first + site.count :]]
    )
    for place, layer in enumerate(layers, start=site.first):
        for path, attribute, offset in indices:
            setattr(layer.get_submodule(path), attribute, place + offset)


def number_layers(model: nn.Module, stack: nn.Module, layers: Sequence[tuple[str, nn.Module | None]]) -> None:
    """Let a list of a model hold these layers, in place: numbered anew if it was numbered, else by these names."""
    there = [name for name, module in stack._modules.items() if module is not None]
    numbered = there == [str(place) for place in range(len(there))]
    stack._modules.clear()
    for place, (name, layer) in enumerate(layers):
        stack._modules[str(place) if numbered else name] = layer
    for parent in model.modules():
        if isinstance(parent, _ENCODERS) and parent.layers is stack:
            parent.num_layers = len(layers)


def light_copy(model: nn.Module) -> nn.Module:
    """Modules of its own around the very tensors of a model: to be run, not to be trained."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def masks_by_parameter(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """The masks of a model's parameters by their identity, which an arrangement keeps."""
    return {id(model.get_parameter(name)): mask for name, mask in masks.items()}


def masks_of(model: nn.Module, masks: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """Masks by identity under all names that their parameters have now."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: masks[id(parameter)] for name, parameter in named if id(parameter) in masks}


class _ChainRecord(LayerRecord):
    kind: Literal["chain"]
    module: Annotated[str, Field(min_length=1)]
    first: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1)]
    chain: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


def apply_chain_record(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Give a model the chain of a record, in place.

    Raises:
        CheckpointError: The record does not fit the model.
    """
    fields = parse(_ChainRecord, record)
    stack = dict(model.named_modules()).get(fields.module)
    length = stack.num_layers if is_layer(stack) else len(stack._modules) if isinstance(stack, CONTAINERS) else 0
    chain = tuple(fields.chain)
    if stack is None or fields.first + fields.count > length or len(chain) > fields.count:
        raise of_another_task(f"the record chooses layers of `{fields.module}` that this model does not have")
    site = Site(fields.module, fields.first, fields.count, pinned=is_layer(stack) and not _alike(stack))
    if max(chain) >= fields.count or not site.allows(chain):
        raise of_another_task(f"the record puts layers of `{fields.module}` in an order in which they do not fit")
    arrange(model, site, chain)


def recurrent_site(name: str, module: nn.RNNBase) -> Site:
    """The layers of a recurrent module."""
    return Site(name, 0, module.num_layers, pinned=not _alike(module))


def _alike(module: nn.RNNBase) -> bool:
    """Whether the first layer reads as many inputs as the others."""
    return module.input_size == directions(module) * (module.proj_size or module.hidden_size)


def _separate(layers: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """A module that was there already is copied: its own buffers and hooks, the same weights."""
    used: set[int] = set()
    for layer in layers:
        if id(layer) in used:
            yield copy.deepcopy(layer, {id(parameter): parameter for parameter in layer.parameters()})
        else:
            used.add(id(layer))
            yield layer


def _names(names: Sequence[str]) -> Iterator[str]:
    """Each once: a repeated one gets a number."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name}_{counts[name]}"


def _recurrent(old: nn.RNNBase, chain: Chain) -> nn.RNNBase:
    """A module of these layers, which holds the very parameters of the old one."""
    options: dict[str, Any] = {"proj_size": old.proj_size} if old.proj_size else {}
    new = cell_of(old).layer(
        old.input_size,
        old.hidden_size,
        num_layers=len(chain),
        bias=old.bias,
        batch_first=old.batch_first,
        dropout=old.dropout if len(chain) > 1 else 0.0,
        bidirectional=old.bidirectional,
        device="meta",
        **options,
    )
    sources, targets, each = parts(old), parts(new), directions(old)
    for place, number in enumerate(chain):
        for direction in range(each):
            source, target = sources[number * each + direction], targets[place * each + direction]
            for role, local in target.names.items():
                setattr(new, local, getattr(old, source.names[role]))
    return new.train(old.training)


def _index_attributes(layers: Sequence[nn.Module], first: int) -> list[tuple[str, str, int]]:
    """Where layers keep their own number, as `transformers` does for caches: path, attribute, what is added to it."""
    found = []
    for path, module in layers[0].named_modules():
        for attribute, value in vars(module).items():
            named = "layer" in attribute and any(word in attribute for word in ("idx", "index", "id", "number"))
            if named and type(value) is int and _counts(layers, path, attribute, value):
                found.append((path, attribute, value - first))
    return found


def _counts(layers: Sequence[nn.Module], path: str, attribute: str, start: int) -> bool:
    """Whether the attribute goes up by one from layer to layer."""
    holders = [dict(layer.named_modules()).get(path) for layer in layers]
    values = [None if holder is None else vars(holder).get(attribute) for holder in holders]
    return values == list(range(start, start + len(layers)))
