"""Finds out what of a model can go, and makes the space of a search from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, get_args

from torch import nn

from compressor.errors import MethodError, UsageError
from compressor.methods.targets import select_attention
from compressor.studies.search import known
from compressor.studies.search.parts import Conversion, HeadRemoval, RankCut
from compressor.studies.search.removals import removals
from compressor.studies.search.retraining_length import retraining_of
from compressor.studies.search.space import Space
from compressor.studies.search.stored import FEW
from compressor.studies.search.within_target import within
from compressor.surgery.attention.known import with_known
from compressor.surgery.attention.sites import attention_sites
from compressor.training.rounding import rounded_parameters

if TYPE_CHECKING:
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.parts import Part
    from compressor.studies.search.study_facts import Decisions
    from compressor.studies.search.subject import Subject

_LARGE: Final = 64
"""Rows and columns from which on a Linear layer's rank may be cut."""
_STARTS: Final = 8
"""Points of another frontier that are tried first."""


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
    parts += removals(goals, subject, left_out, decided)
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
        few = tuple(word for word in precisions[1:] if word in FEW)
        rounds = few if rounded_parameters(subject.model, "int4") else ()
        retraining = retraining_of(goals, subject, left_out, decided, rounds)
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
    fewer = [word for word in precisions if word in FEW]
    return {} if field is None or len(precisions) == 1 else {word: {"max_error": 1.0} for word in fewer}
