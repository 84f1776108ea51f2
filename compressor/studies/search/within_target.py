"""Keeps out of a space what a target runtime does not take, by the table of `compressor check`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from compressor.errors import CompressorError, ExportError, UsageError
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import OPEN_SIZE
from compressor.studies.search import files
from compressor.studies.search.parts import HeadRemoval, Removal
from compressor.studies.search.stored import MIDDLE, ROUNDED, Precision
from compressor.studies.search.study_facts import Reach

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from compressor.formats import ExportOptions
    from compressor.onnx_graphs.partition import Refusal
    from compressor.studies.search.compressed import Compressed
    from compressor.studies.search.space import Space
    from compressor.studies.search.subject import Subject

_WAYS: Final = ("anywhere", "npu", "cpu")
"""Of `rounding.quantize_for`, in the order in which they are tried: plain ONNX first, except for ONNX Runtime's CPU."""
_WAYS_ON_CPU: Final = ("cpu",)


def within(space: Space, subject: Subject, known: Reach | None) -> tuple[Space, Reach]:
    """The part of a space whose files the target takes.

    Of the precisions those stay of which the target refuses fewest kinds of nodes (none, if there are such); of
    conversions and factors those that add no kind. What only makes tensors smaller changes no node.

    Args:
        space: With a target in its goals.
        subject: The task.
        known: What an earlier process found out about the same study.

    Raises:
        UsageError: The target takes nothing of the model, or the file has no fixed sizes and must have.
    """
    reach = _measured(space, subject) if known is None else known
    kept = tuple(word for word in space.precisions if word in reach.refused)
    narrowed = replace(
        space,
        parts=tuple(space.parts[place] for place in reach.parts),
        precisions=kept,
        left_out=(*space.left_out, *reach.left_out),
        rounding={word: {**space.rounding.get(word, {}), **reach.rounding.get(word, {})} for word in kept},
        not_taken=reach.refused,
    )
    return narrowed, reach


def kinds(refusals: Iterable[Refusal]) -> tuple[str, ...]:
    """Operators that are not taken, with the reason."""
    return tuple(sorted({f"{refusal.operator} ({refusal.reason})" for refusal in refusals}))


def refuse_more(space: Space, word: str, refusals: Iterable[Refusal]) -> None:
    """Raise `ExportError` if the target does not take a kind of node that the original in this precision has not."""
    more = sorted(set(kinds(refusals)) - set(space.not_taken.get(word, ())))
    if more:
        raise ExportError(f"{space.goals.target} does not take {', '.join(more)}")


def _measured(space: Space, subject: Subject) -> Reach:
    assert space.goals.target is not None
    target = targets.get(space.goals.target)
    model = subject.compressed()
    found: dict[str, tuple[str, ...]] = {}
    rounding: dict[str, dict[str, str]] = {}
    left_out: list[str] = []
    for word in space.precisions:
        subject.progress.say(f"asking what {target.name} takes: {word}")
        best = _best_way(space, subject, model, target, word)
        if isinstance(best, str):
            left_out.append(f"precision {word}: {best}")
        else:
            found[word], rounding[word] = best
    _refuse_hopeless(found, target, left_out)
    fewest = min(len(refused) for refused in found.values())
    for word, refused in found.items():
        if len(refused) > fewest:
            left_out.append(f"precision {word}: {target.name} does not take {', '.join(refused)}")
    kept = {word: refused for word, refused in found.items() if len(refused) == fewest}
    if fewest:
        not_taken = ", ".join(next(iter(kept.values())))
        happens = "does not run there" if target.takes is None else "runs on the CPU"
        left_out.append(f"{target.name} does not take all of the original: {not_taken}; that part {happens}")
    parts = _parts(space, subject, target, kept, rounding, left_out)
    own = {word: rounding[word] for word in kept if rounding[word]}
    return Reach(refused=kept, rounding=own, parts=parts, left_out=tuple(left_out))


def _best_way(
    space: Space, subject: Subject, model: Compressed, target: targets.Target, word: str
) -> tuple[tuple[str, ...], dict[str, str]] | str:
    """What is refused, and the options of `rounding` with which fewest is; or why there is no such file."""
    tried: list[tuple[tuple[str, ...], dict[str, str]]] = []
    reason = ""
    ways = _WAYS_ON_CPU if target.name == "ort-cpu" else _WAYS
    for way in ways if word in ROUNDED and len(space.precisions) > 1 else ("",):
        options = {"quantize_for": way} if way else {}
        try:
            refused = kinds(files.refused_by(target, subject, model, _export(space, word, options)))
        except (CompressorError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            continue
        if not refused:
            return refused, options
        tried.append((refused, options))
    return min(tried, key=lambda one: len(one[0])) if tried else f"no such file: {reason}"


def _export(space: Space, word: str, options: Mapping[str, str]) -> ExportOptions:
    """The goals' export in a precision, with these options of `rounding`."""
    own = {word: {**space.rounding.get(word, {}), **options}}
    return replace(space, rounding=own).exported_as(Precision(word, MIDDLE if word == "mixed" else None))


def _refuse_hopeless(found: Mapping[str, tuple[str, ...]], target: targets.Target, left_out: list[str]) -> None:
    """Raise if no file could be made, or none is of any use there."""
    if not found:
        raise UsageError(f"no file for {target.name} can be made; {'; '.join(left_out)}", hint="leave --target out")
    if all(any(OPEN_SIZE in kind for kind in refused) for refused in found.values()):
        raise UsageError(
            f"{target.name} takes fixed sizes only, and the file has open ones",
            hint="give all of them with --shape, such as --shape batch=1 --shape time=32",
        )
    if target.takes is None and all(found.values()):
        refused = ", ".join(sorted(found.values(), key=len)[0])
        raise UsageError(
            f"{target.name} does not take {refused} of this model",
            hint=f"`compressor check FILE.onnx --target {target.name} --fix` may help, or `--format {target.name}`",
        )


def _parts(
    space: Space,
    subject: Subject,
    target: targets.Target,
    kept: Mapping[str, tuple[str, ...]],
    rounding: Mapping[str, Mapping[str, str]],
    left_out: list[str],
) -> tuple[int, ...]:
    """Places of the parts whose files have no kind of node that is refused and that the original has not."""
    word = next(iter(kept))
    export = _export(space, word, rounding[word])
    good = []
    for place, part in enumerate(space.parts):
        if isinstance(part, (Removal, HeadRemoval)):
            good.append(place)
            continue
        name = part.knobs[0].name
        point = {knob.name: knob.words[-1] if knob.words else knob.at(0.5) for knob in part.knobs}
        subject.progress.say(f"asking what {target.name} takes: {name}")
        try:
            model = subject.compressed(part.steps(point))
            more = set(kinds(files.refused_by(target, subject, model, export))) - set(kept[word])
        except CompressorError:  # it may be possible at another place of the space; the file is checked again there
            more = set()
        if more:
            left_out.append(f"{name}: {target.name} does not take {', '.join(sorted(more))}")
        else:
            good.append(place)
    return tuple(good)
