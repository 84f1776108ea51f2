"""Finds what replaced what: two models, before and after a step, compared layer by layer.

So no step can convert an architecture without being seen: a layer of this package that replaces one of PyTorch is
either the same architecture in other sizes (`RESIZED`), or a conversion that can be probed, or one that is said not to
have been.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.attention.pooling import PoolingReplacement
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.memory_cache import NO_CACHE
from compressor.nn.memory_cache import fields as cache_fields
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.layers import cell_of, is_layer
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.nn.wide_norms import WIDE_NORMS
from compressor.probing.architecture import MOST_LAYERS, Conversion, Converted, Encoder, GraphStack, Recurrent
from compressor.probing.depth_changes import depth_changes
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.probing.layers import Mixer

RESIZED: Final = (UnevenRecurrent, CompactMultiheadAttention, *WIDE_NORMS, LowRankLinear, LowRankRecurrent)
"""The architecture of the layer that they replace, in sizes that PyTorch's cannot have."""
_ATTENTION: Final = (nn.MultiheadAttention, CompactMultiheadAttention, AarenAttention)
_MOST_MIXED: Final = 4
_LOOKS_AHEAD: Final = "it sees later positions, and the synthetic tasks are of what came before"


def between(before: nn.Module, after: nn.Module) -> tuple[tuple[Conversion, ...], tuple[Skip, ...]]:
    """The conversions by which one model became the other, and those that cannot be probed, with the reason.

    A layer is known by its name. Aaren layers among attention layers are probed together, as one stack (`_encoders`);
    stacks with fewer, tied or looped layers are seen by `depth_changes`.
    """
    old = dict(before.named_modules())
    changed = [
        (name, old[name], new)
        for name, new in after.named_modules()
        if name in old and type(old[name]) is not type(new)
    ]
    graphs = [
        _of_graph(name, layer, new.stack)
        for name, layer, new in changed
        if is_layer(layer) and isinstance(new, RecurrentStack) and isinstance(new.stack, GraphRecurrent)
    ]
    aaren = {name: new.num_heads for name, _, new in changed if isinstance(new, (AarenAttention, LearnedQuery))}
    poolings = [
        Skip(
            name=name,
            reason="a pooling gives one vector for a sequence, and the synthetic tasks ask at every position; its "
            "controls and the metric are what there is to judge it by",
        )
        for name, _, new in changed
        if isinstance(new, PoolingReplacement)
    ]
    converted, ahead = [], []
    for name, layer, new in changed:
        if not isinstance(new, ConvertedRecurrent):
            continue
        if new.lookahead:
            ahead.append(Skip(name=name, reason=_LOOKS_AHEAD))
        else:
            converted.append(_of_converted(name, layer, new))
    depths, unknown = depth_changes(before, after)
    return (*graphs, *converted, *_encoders(before, after, aaren), *depths), (*poolings, *ahead, *unknown)


def _of_converted(name: str, old: Any, new: ConvertedRecurrent) -> Conversion:
    before, after = (min(count, MOST_LAYERS) for count in (old.num_layers, len(new.each)))
    cell = cell_of(old).mode.lower()
    return Conversion((name,), Recurrent(cell, before), Converted.of(new.target, new.each[-1].record(), after))


def _of_graph(name: str, old: RecurrentLayer, stack: GraphRecurrent) -> Conversion:
    new = GraphStack(
        stack.cell,
        stack.graph,
        stack.units_per_node,
        width=old.hidden_size,
        skips=stack.skip_edges,
        repeated_rows=stack.repeated_rows,
    )
    return Conversion((name,), Recurrent(stack.cell, min(old.num_layers, MOST_LAYERS)), new)


def _encoders(model: nn.Module, after: nn.Module, converted: Mapping[str, int]) -> Iterator[Conversion]:
    """For every stack of attention layers of which some become Aaren (name -> heads), the stack before and after.

    Layers are of one stack if their names differ in numbers only. The heads are those of its first. If all are
    converted, two represent them; else, of more than four, the first of each run of identical layers.
    """
    stacks: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, _ATTENTION) or name in converted:
            stacks.setdefault(re.sub(r"[0-9]+", "0", name), []).append(name)
    for names in stacks.values():
        own = tuple(name for name in names if name in converted)
        if not own:
            continue
        pairs = [_mixers(model.get_submodule(name), converted=name in own) for name in names]
        if len(set(pairs)) == 1:
            pairs = pairs[:MOST_LAYERS]
        elif len(pairs) > _MOST_MIXED:
            pairs = [pair for i, pair in enumerate(pairs) if i == 0 or pair != pairs[i - 1]][:_MOST_MIXED]
        heads = int(getattr(model.get_submodule(names[0]), "num_heads", converted[own[0]]))
        old, new = (tuple(side) for side in zip(*pairs, strict=True))
        caches = [_cache(which, names) for which in (model, after)]
        yield Conversion(own, Encoder(old, heads, **caches[0]), Encoder(new, heads, **caches[1]))


def _cache(model: nn.Module, names: Sequence[str]) -> Mapping[str, int]:
    """The memory cache of the first Aaren of these that has one."""
    modules = (model.get_submodule(name) for name in names)
    caches = (cache_fields(module.cache) for module in modules if isinstance(module, AarenAttention) and module.cache)
    return next(caches, NO_CACHE)


def _mixers(module: nn.Module, *, converted: bool) -> tuple[Mixer, Mixer]:
    """What a layer is before and after."""
    before: Mixer = "aaren" if isinstance(module, AarenAttention) else "attention"
    return before, "aaren" if converted else before
