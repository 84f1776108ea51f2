"""Finds out of which layers units can be taken, which lose them together, and how much each matters."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from compressor.errors import CompressorError, MethodError, OutputError
from compressor.methods.base import loop_examples, trace_example
from compressor.methods.magnitude import Magnitude
from compressor.methods.targets import select_layers
from compressor.nn.recurrent.layers import RECURRENT
from compressor.studies import sensitivity as maps
from compressor.studies.search.parts import Removal
from compressor.studies.search.subject import SLICE
from compressor.surgery.units import removal
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.own_cells import find_own_cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

    from compressor.report import Sensitivity
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.study_facts import Decisions
    from compressor.studies.search.subject import Subject

RATIOS: Final = (0.25, 0.5, 0.75, 0.9)
"""Of the sensitivity map."""
_MAP_SHARE: Final = 0.1
"""Of the time limit that the sensitivity map may take."""
Kind = Literal["units", "width"]


@dataclass(frozen=True)
class Removable:
    """Layers of which units can go."""

    units: tuple[tuple[str, ...], ...]
    """Recurrent layers and cells, those together that lose the same units."""
    width: tuple[tuple[str, ...], ...]
    """The same of Linear layers and convolutions."""


def removals(goals: Goals, subject: Subject, left_out: list[str], decided: Decisions) -> list[Removal]:
    """The layers that lose units together, with their sensitivity."""
    found = removable(subject, left_out)
    wanted: list[tuple[Kind, tuple[tuple[str, ...], ...]]] = [("units", found.units), ("width", found.width)]
    parts = []
    for kind, tied in wanted:
        if kind not in goals.use or not tied:
            continue
        targets = tuple(name or "*" for group in tied for name in group)
        step = Magnitude(prune="units", targets=targets, ratio=0.5)
        prober = maps.Prober(subject.task, subject.model, step, subject.device)
        measured = None
        if len(tied) == 1:  # a map says how layers differ
            pass
        elif _is_mapped(kind, goals, subject, prober, decided):
            measured = _sensitivity(subject, prober)
        else:
            left_out.append(f"the sensitivity map of {kind}: it takes too long, so no layer is known to matter more")
        if measured is not None:
            layers = [layer for layer in measured.layers if layer.points]
            groups = tuple(layer.modules for layer in layers)
            sizes = tuple(layer.sizes for layer in layers)
        else:
            groups = tied
            sizes = tuple(tuple(size for name in group for size in prober.sizes(name)) for group in tied)
        if groups:
            parts.append(Removal(kind, groups, sizes, measured))
    return parts


def removable(subject: Subject, left_out: list[str]) -> Removable:
    """Recurrent layers and cells, and Linear layers and convolutions, of which one unit can be taken out.

    Layers that lose a unit together (a state that one hands to the other, a residual) have one ratio: with others of
    their own nothing could be carried out.
    """
    model, example = subject.model, trace_example(subject.task)
    cells = find_own_cells(model, *loop_examples(subject.task))
    try:
        every = select_layers(model, ("*",), (), cells).names
    except MethodError as error:
        left_out.append(error.message)
        return Removable((), ())
    together: dict[str, set[str]] = {}
    with subject.progress.bar("trying what can be removed", len(every)) as bar:
        for name in every:
            lost = _lost_with(model, example, name, every)
            if lost is not None:
                together[name] = lost
            bar.advance(1, name)
    recurrent = [name for name in together if name in cells or isinstance(model.get_submodule(name), RECURRENT)]
    refused = [name for name in every if name not in together and isinstance(model.get_submodule(name), RECURRENT)]
    left_out += [f"units of `{name}` cannot be removed" for name in refused]
    others = [name for name in together if name not in recurrent]
    return Removable(_tied(recurrent, together), _tied(others, together))


def _lost_with(model: nn.Module, example: tuple[torch.Tensor, ...], name: str, every: Sequence[str]) -> set[str] | None:
    """The layers that lose a unit if this one does; None if it cannot."""
    try:
        done = removal.prune(model, {}, [example], names=[name], amount=Amount(count=1))
    except CompressorError:
        return None
    changed = [change.name for change in done.changes if change.action == "units removed"]
    return {other for other in every if any(each.startswith(f"{other}.") for each in changed)} | {name}


def _tied(names: Sequence[str], together: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """These layers in groups that lose the same units, in the model's order."""
    groups: list[set[str]] = []
    for name in names:
        own = together[name] & set(names)
        touching = [group for group in groups if group & own]
        groups = [group for group in groups if not group & own] + [own.union(*touching)]
    ordered = [tuple(name for name in names if name in group) for group in groups]
    return tuple(sorted(ordered, key=lambda group: names.index(group[0])))


def _is_mapped(kind: str, goals: Goals, subject: Subject, prober: maps.Prober, decided: Decisions) -> bool:
    key = f"map of {kind}"
    if key not in decided.numbers:
        decided.numbers[key] = _affordable(goals, subject, prober)
    return bool(decided.numbers[key])


def _affordable(goals: Goals, subject: Subject, prober: maps.Prober) -> int:
    """Whether a sensitivity map takes no more than its share of the time limit."""
    if goals.time is None:
        return 1
    with subject.limited(SLICE):
        started = subject.now()
        with suppress(MethodError):
            prober.together(dict.fromkeys(prober.names[:1], RATIOS[0]))
        seconds = (subject.now() - started) * len(prober.names) * len(RATIOS)
    return int(seconds <= _MAP_SHARE * goals.time)


def _sensitivity(subject: Subject, prober: maps.Prober) -> Sensitivity:
    """The map of these layers, from the cache if it was measured before."""
    with subject.limited(SLICE):
        path = maps.cache_file(prober, RATIOS)
        known = maps.read_cache(path)
        if known is None:
            known = maps.measure(prober, RATIOS, progress=subject.progress)
            with suppress(OutputError):  # the measurement is good without it
                maps.write_cache(path, known)
    return known
