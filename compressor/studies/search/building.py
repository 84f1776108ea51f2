"""Finds out what of a model can go, and makes the space of a search from it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch
from torch import nn

from compressor.errors import CompressorError, MethodError, OutputError, UsageError
from compressor.methods.base import loop_examples, trace_example
from compressor.methods.magnitude import Magnitude
from compressor.methods.targets import select_attention, select_layers
from compressor.nn.recurrent.layers import RECURRENT
from compressor.studies import sensitivity as maps
from compressor.studies.search import known
from compressor.studies.search.clock import RETRAIN_SHARE
from compressor.studies.search.parts import Conversion, HeadRemoval, RankCut, Removal, Retraining
from compressor.studies.search.space import Space
from compressor.studies.search.subject import SLICE
from compressor.studies.search.within_target import within
from compressor.surgery.attention.known import with_known
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.units import removal
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.own_cells import find_own_cells
from compressor.training.rounding import rounded_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.report import Sensitivity
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.parts import Part
    from compressor.studies.search.study_facts import Decisions
    from compressor.studies.search.subject import Subject

RATIOS: Final = (0.25, 0.5, 0.75, 0.9)
"""Of the sensitivity map."""
_MAP_SHARE: Final = 0.1
"""Of the time limit that the sensitivity map may take."""
_EPOCHS: Final = 40
"""Of the longest retraining if only the number of trials is limited."""
_FEWEST: Final = 16
"""Batches of the shortest retraining."""
_MOST_COUNTED: Final = 2000
"""Batches that are counted to know how many an epoch has."""
_LARGE: Final = 64
"""Rows and columns from which on a Linear layer's rank may be cut."""
_STARTS: Final = 8
"""Points of another frontier that are tried first."""
Kind = Literal["units", "width"]


@dataclass(frozen=True)
class Removable:
    """Layers of which units can go."""

    units: tuple[tuple[str, ...], ...]
    """Recurrent layers and cells, those together that lose the same units."""
    width: tuple[tuple[str, ...], ...]
    """The same of Linear layers and convolutions."""


def build(goals: Goals, subject: Subject, decided: Decisions) -> Space:
    """The space of what the model has, the goals allow and the format can store.

    Args:
        goals: What is asked for.
        subject: The task.
        decided: Of a study that goes on; filled in if it begins.

    Raises:
        UsageError: Nothing of the model can be made smaller by what may be used.
        TaskError: The task's functions do not run.
    """
    left_out: list[str] = []
    parts: list[Part] = []
    attention = _attention(subject)
    if "heads" in goals.use and attention and max(attention.values()) > 1:
        parts.append(HeadRemoval(max(attention.values())))
    parts += _removals(goals, subject, left_out, decided)
    if "rank" in goals.use:
        linear = _large_linear(subject.model, set(attention))
        if attention or linear:
            parts.append(RankCut(bool(attention), linear))
    for word in goals.allow:
        name, _, module = word.partition("=")
        parts.append(Conversion(name, module))
    precisions = _precisions(goals)
    retraining = None
    if "retrain" in goals.use:
        rounds = "int4" in precisions[1:] and bool(rounded_parameters(subject.model, "int4"))
        retraining = _retraining(goals, subject, left_out, decided, rounds=rounds)
    space = Space(
        goals, tuple(parts), retraining, precisions, tuple(left_out), _judged_by_the_metric(goals, precisions)
    )
    if not space.parts and not any(space.export({"precision": word}).compresses for word in space.precisions):
        raise UsageError(
            "nothing of this model can be made smaller by what may be used" + "".join(f"; {why}" for why in left_out),
            hint="`compressor inspect --task` shows what can be pruned; add to `use` or `allow`",
        )
    if goals.target is not None:
        space, decided.reach = within(space, subject, decided.reach)
    if goals.start is not None:
        if decided.first is None:
            decided.first = tuple(known.starts(space, known.read(goals.start), _STARTS))
        space = replace(space, first=decided.first)
    return space


def _attention(subject: Subject) -> dict[str, int]:
    """Attention of which heads can go -> its heads."""
    declared = with_known(subject.model, subject.task.attention)
    try:
        names = select_attention(subject.model, declared, None, ()).names
    except MethodError:
        return {}
    sites = attention_sites(subject.model, declared).attentions
    return {site.name: site.heads for site in sites if site.name in names and site.reason is None}


def _removals(goals: Goals, subject: Subject, left_out: list[str], decided: Decisions) -> list[Removal]:
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


def _large_linear(model: nn.Module, attention: set[str]) -> tuple[str, ...]:
    """Linear layers that are worth cutting and no part of attention."""
    inside = tuple(f"{name}." for name in attention)
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and min(module.in_features, module.out_features) >= _LARGE
        and not name.startswith(inside)
    )


def _precisions(goals: Goals) -> tuple[str, ...]:
    """What the format can store weights in, from the largest; the one that the goals give, if they give one."""
    options = goals.exports[0]
    field = type(options).model_fields.get("precision")
    if field is None:
        return ()
    if "precision" in options.model_fields_set or "precision" not in goals.use:
        return (str(options.model_dump()["precision"]),)
    order = ("float32", "float16", "int8", "int4", "mixed")
    return tuple(word for word in order if word in get_args(field.annotation))


def _judged_by_the_metric(goals: Goals, precisions: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Options of `rounding` by which fewer than 8 bits stay what a point asks for, whatever the outputs' error is.

    The exporter's own limit of that error would store matrices more exactly than the rungs before have tried, and
    whether the file is good enough is what the metric of the file tells.
    """
    field = type(goals.exports[0]).model_fields.get("rounding")
    fewer = [word for word in precisions if word in ("int4", "mixed")]
    return {} if field is None or len(precisions) == 1 else {word: {"max_error": 1.0} for word in fewer}


def _retraining(
    goals: Goals, subject: Subject, left_out: list[str], decided: Decisions, *, rounds: bool
) -> Retraining | None:
    """How long retraining may be, and what it learns from."""
    if not any(parameter.requires_grad for parameter in subject.model.parameters()):
        left_out.append("retraining: no parameter of the model takes a gradient")
        return None
    generator = torch.Generator().manual_seed(subject.seed)
    first, count = None, 0
    for inputs, target in subject.task.batches(generator):
        first = first or (inputs, target)
        count += 1
        if count >= _MOST_COUNTED:
            break
    if first is None:
        left_out.append("retraining: the task gives no batches")
        return None
    if "batches" not in decided.numbers:
        decided.numbers["batches"] = _longest(goals, subject, first[0], count)
    most = decided.numbers["batches"]
    loss, labelled = _loss(subject, first)
    weights = ("0.5", "0.9", "1.0") if labelled else ("1.0",)
    return Retraining(min(_FEWEST, most), most, count, loss, weights, rounds)


def _longest(goals: Goals, subject: Subject, inputs: tuple[torch.Tensor, ...], epoch: int) -> int:
    """Batches of the longest retraining: some epochs, or what a share of the time limit lets through."""
    if goals.time is None:
        return max(2 * _FEWEST, _EPOCHS * epoch)
    started = subject.now()
    for _ in range(3):
        _step_like(subject, inputs)
    seconds = (subject.now() - started) / 3
    affordable = int(RETRAIN_SHARE * goals.time / max(seconds, 1e-6))
    return max(2 * _FEWEST, min(affordable, 2 * _EPOCHS * epoch))


def _step_like(subject: Subject, inputs: tuple[torch.Tensor, ...]) -> None:
    """About the work of one batch of retraining: the teacher's pass, the pupil's, and its gradients."""
    placed = tuple(part.to(subject.device) for part in inputs)
    with torch.no_grad():
        subject.model(*placed)
    outputs = subject.model(*placed)
    _first(outputs).float().square().mean().backward()
    subject.model.zero_grad(set_to_none=True)


def _loss(subject: Subject, batch: tuple[tuple[torch.Tensor, ...], object]) -> tuple[str, bool]:
    """The distance for distillation, and whether the task has labels.

    Whole numbers as targets: classes, so the outputs are logits. Rows of length 1: embeddings. Numbers otherwise.
    """
    inputs, target = batch
    with torch.no_grad():
        outputs = subject.model(*(part.to(subject.device) for part in inputs))
    output = _first(outputs).float()
    labelled = target is not None
    targets = [part for part in (target if isinstance(target, (tuple, list)) else [target]) if torch.is_tensor(part)]
    if any(not part.is_floating_point() for part in targets) and output.dim() > 1 and output.shape[-1] > 1:
        return "kl", labelled
    lengths = output.norm(dim=-1)
    return ("cosine" if bool((lengths - 1).abs().max() < 1e-3) else "mse"), labelled


def _first(outputs: object) -> torch.Tensor:
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]  # type: ignore[index]
