"""Sees which stacks of layers were shortened, tied or looped: two models, before and after a step, compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.halting import HaltingLayer
from compressor.nn.layer_mix import LayerMix
from compressor.nn.memory_cache import fields as cache_fields
from compressor.nn.recurrent.layers import cell_of, directions, is_layer, parts
from compressor.probing.architecture import Conversion, Encoder, Recurrent
from compressor.probing.depth import pair
from compressor.report import Skip
from compressor.surgery.attention.known import with_known
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.depth.stacks import CONTAINERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


_UNKNOWN: Final = "its layers hold neither attention that is known nor a recurrent layer, which are what probes know"
_LOOKS_AHEAD: Final = "its layers run in two directions, and the synthetic tasks are of what came before"


@dataclass(frozen=True)
class _Stack:
    """A stack, place by place; a loop has as many places as steps."""

    kinds: tuple[type[nn.Module], ...]
    weights: tuple[tuple[Tensor, ...], ...]
    threshold: float | None = None
    """Of its loops."""

    def numbers(self, least_axes: int) -> tuple[int, ...]:
        """The same number for places that share all weights of at least so many axes."""
        keys = [tuple(id(weight) for weight in own if weight.dim() >= least_axes) for own in self.weights]
        known = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        return tuple(known[key] for key in keys)

    @property
    def pattern(self) -> tuple[Any, ...]:
        """What is the same if no place changed."""
        return self.numbers(2), self.numbers(1), self.threshold

    def of_kind(self, kind: type[nn.Module]) -> _Stack:
        """The places of one class."""
        chosen = [own for own, each in zip(self.weights, self.kinds, strict=True) if each is kind]
        return _Stack((kind,) * len(chosen), tuple(chosen), self.threshold)


def depth_changes(before: nn.Module, after: nn.Module) -> tuple[tuple[Conversion, ...], tuple[Skip, ...]]:
    """The stacks of one model that have other places in the other one, and those of them that cannot be probed.

    A stack is a list of layers or a recurrent module of several layers, and known by its name.
    """
    conversions, skips = [], []
    known = dict(after.named_modules())
    for name, old in before.named_modules():
        first, second = _stack(old), _stack(known.get(name))
        if first is None or second is None or first.pattern == second.pattern:
            continue
        kind = Counter(first.kinds).most_common(1)[0][0]
        one = _one(old, kind, before)
        if isinstance(one, str):
            skips.append(Skip(name=name or "(model)", reason=one))
            continue
        first, second = first.of_kind(kind), second.of_kind(kind)
        own = second.numbers(2) != second.numbers(1)
        pairs = pair(one, first.numbers(2), second.numbers(2), own_vectors=own, threshold=second.threshold)
        conversions.append(Conversion((name,), *pairs))
    return tuple(conversions), tuple(skips)


def _stack(module: nn.Module | None) -> _Stack | None:
    """None if it is no stack with weights."""
    if is_layer(module):
        weights = tuple(tuple(_of_part(module, place)) for place in range(module.num_layers))
        return _Stack((type(module),) * len(weights), weights)
    if not isinstance(module, CONTAINERS):
        return None
    layers: list[nn.Module] = []
    threshold = None
    for layer in _inside(module):
        if isinstance(layer, HaltingLayer):
            threshold = layer.threshold
            layers += [layer.layer] * layer.steps
        else:
            layers.append(layer)
    weights = tuple(tuple(layer.parameters()) for layer in layers)
    return _Stack(tuple(map(type, layers)), weights, threshold) if layers else None


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    for layer in module._modules.values():  # one that is in it twice is two layers
        if isinstance(layer, LayerMix):
            yield from layer.layers
        elif layer is not None and any(True for _ in layer.parameters()):
            yield layer


def _of_part(module: Any, place: int) -> Iterator[Tensor]:
    each = directions(module)
    for part in parts(module)[place * each : (place + 1) * each]:
        yield from part.weights(module).values()


def _heads(model: nn.Module) -> dict[int, int]:
    """Identity of each module that is an attention, also as other libraries write it -> its heads."""
    sites = attention_sites(model, with_known(model, {})).attentions
    heads = {id(model.get_submodule(site.name)): site.heads for site in sites}
    return heads | {id(module): module.num_heads for module in model.modules() if isinstance(module, AarenAttention)}


def _one(stack: nn.Module, kind: type[nn.Module], model: nn.Module) -> Encoder | Recurrent | str:
    """One layer of a stack of the model as a probe builds it, or why there is none."""
    heads = _heads(model)
    layer = stack if is_layer(stack) else next(layer for layer in _inside(stack) if type(layer) is kind)
    for module in layer.modules():
        if id(module) in heads:
            if not isinstance(module, AarenAttention):
                return Encoder(("attention",), heads[id(module)])
            return Encoder(("aaren",), heads[id(module)], **cache_fields(module.cache))
        if is_layer(module):
            return _LOOKS_AHEAD if directions(module) > 1 else Recurrent(cell_of(module).mode.lower())
    return _UNKNOWN
