"""What to try next: for what was missed, each thing with the command that does it; else how far the result carries.

Every number that is proposed is computed from the report's own, and is a try: what it brings is measured by the run.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from compressor.render import format as form
from compressor.render.blocks import Code, Text
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressor.render.blocks import Block
    from compressor.report import Limit, Measurement, Report

_LARGEST_RATIO: Final = 0.95
_INT8_GAIN: Final = 3.3
"""How many times smaller a float file usually becomes by 8 bits; scales and the graph keep it from 4."""
_DROPS: Final = ("metric_drop", "metric_drop_relative")
_SLACK: Final = 0.5
"""Part of a limit on the metric that must be left before more is proposed."""


@dataclass(frozen=True)
class Try:
    """One thing to try."""

    text: str
    changes: tuple[tuple[str, Any], ...] = ()
    """Keys of the recipe and their new values."""
    command: tuple[str, ...] = ()
    """Another command than the run with these changes."""
    removes: float = 0.0
    """The ratio that it removes, if it removes more than was removed."""


def tries(report: Report) -> list[Try]:
    """Each thing once, in the order in which to try them."""
    if report.quick:
        return [Try("Run the whole recipe: a rehearsal shows only that it works.", command=_whole(report))]
    missed = [limit for limit in report.limits if not limit.met]
    found = [one for limit in missed for one in _for_missed(report, limit)]
    if any(_name(limit) in _DROPS for limit in missed):  # to remove more would lose more of it
        found = [one for one in found if not one.removes]
    if not missed and not report.refused:
        found = [*_for_more(report), *_on_a_phone(report)]
    ordered = sorted(
        found, key=lambda one: one.removes
    )  # of several files that miss a limit, the one furthest off last
    by_key = {tuple(key for key, _ in one.changes) or one.text: one for one in ordered}
    return list(by_key.values())


def _name(limit: Limit) -> str:
    return limit.name.rpartition(": ")[2]


def _for_missed(report: Report, limit: Limit) -> Iterator[Try]:
    file, _, name = limit.name.rpartition(": ")
    if name in _DROPS:
        yield from _keep_more(report, _allowed(report, limit), _file(report, file))
    elif name in ("file_ratio", "file_bytes", "flash_bytes", "ram_bytes"):
        yield from _store_less(report, limit, file)
    elif name == "parameters_ratio":
        yield from _remove_more(report, limit.limit / limit.reached)
    else:
        wanted = limit.limit / limit.reached if name == "speedup" else limit.reached / limit.limit
        yield from _run_faster(report, wanted, _file(report, file))


def _allowed(report: Report, limit: Limit) -> float:
    """The loss that a limit on the metric allows, in its own unit."""
    return limit.limit * (abs(report.original.score.value) if _name(limit) == "metric_drop_relative" else 1.0)


def _keep_more(report: Report, allowed: float, file: Measurement | None) -> Iterator[Try]:
    """The metric fell too far: by rounding, or by the steps."""
    if file is not None and file.artifact.quantization is not None and _lost_by_rounding(report, file, allowed):
        yield Try(
            f"Rounding costs most of the metric of {file.artifact.path}: store more bits.",
            _changed_exports(report, file.artifact.path, "precision", "float32"),
        )
    for index, step in _steps_with(report, "ratio"):
        ratio = step["ratio"]
        less = math.floor(70 * ratio) / 100
        if less > 0:
            yield Try(
                f"Remove less: `steps.{index}.ratio` {less:g} instead of {ratio:g}.", ((f"steps.{index}.ratio", less),)
            )
    if _steps_with(report, "ratio"):
        yield Try(
            "Remove less where it costs most: a sensitivity map gives each layer a ratio of its own.",
            command=_sensitivity(report, allowed),
        )
    yield from _train_longer(report)


def _train_longer(report: Report) -> Iterator[Try]:
    retrains = [(index, step) for index, step in enumerate(_steps(report)) if step.get("method") == "retrain"]
    if not retrains:
        yield Try("Add a step `retrain` at the end: what is left learns to do the work of what is gone.")
    for index, step in retrains[-1:]:
        if step.get("epochs"):
            longer = 2 * step["epochs"]
            yield Try(
                f"Retrain longer: `steps.{index}.epochs` {longer} instead of {step['epochs']}.",
                ((f"steps.{index}.epochs", longer),),
            )
        if step.get("distill") is False:
            yield Try("Let the original teach what is left: `distill: true`.", ((f"steps.{index}.distill", True),))


def _store_less(report: Report, limit: Limit, file: str) -> Iterator[Try]:
    """The file is too large: fewer bits, then fewer numbers."""
    wanted = limit.reached / limit.limit if limit.name.endswith("bytes") else limit.limit / limit.reached
    by_bits = 1.0
    for index, export in _exports(report, file):
        if export.get("precision") == "float32" and export.get("format") in ("onnx", "ort", "c"):
            by_bits = _INT8_GAIN
            yield Try(
                f"Store `{export.get('name', 'model')}` in 8 bits instead of 32: `exports.{index}.precision` int8.",
                ((f"exports.{index}.precision", "int8"),),
            )
        elif export.get("precision") == "int8" and export.get("format") in ("onnx", "c"):
            yield Try(
                f"Store `{export.get('name', 'model')}` in 4 bits: `exports.{index}.precision` int4.",
                ((f"exports.{index}.precision", "int4"),),
            )
    if wanted > by_bits:
        yield from _remove_more(report, wanted / by_bits)


def _remove_more(report: Report, factor: float) -> Iterator[Try]:
    """So many times fewer parameters, if they go with the square of the units that are left."""
    for index, step in _steps_with(report, "ratio"):
        if step.get("prune", "units") != "units":
            continue
        ratio = step["ratio"]
        more = min(_LARGEST_RATIO, math.ceil(100 * (1 - (1 - ratio) / math.sqrt(factor))) / 100)
        if more > ratio:
            yield Try(
                f"Remove more: `steps.{index}.ratio` {more:g} instead of {ratio:g}, and look at the metric.",
                ((f"steps.{index}.ratio", more),),
                removes=more,
            )


def _run_faster(report: Report, factor: float, file: Measurement | None) -> Iterator[Try]:
    if file is not None and file.artifact.quantization is not None and file.artifact.quantization.target == "cpu":
        yield Try(
            "Compute in float, store 8 bits: integers do not always pay.",
            _changed_exports(report, file.artifact.path, "rounding", {"quantize_for": "anywhere"}),
        )
    yield from _remove_more(report, factor)
    if not any(step.get("prune") == "units" or step.get("method") == "heads" for step in _steps(report)):
        yield Try("Remove whole units or heads: fewer numbers to multiply make a file faster in any runtime.")


def _for_more(report: Report) -> Iterator[Try]:
    """All is met: if the metric may still fall, more can go."""
    drops = [limit for limit in report.limits if _name(limit) in _DROPS]
    if not drops or any(limit.limit <= 0 or limit.reached > _SLACK * limit.limit for limit in drops):
        return
    parts = (_allowed(report, limit) * (1 - max(0.0, limit.reached) / limit.limit) for limit in drops)
    left = form.metric(min(parts))
    for index, step in _steps_with(report, "ratio"):
        more = math.floor(100 * (step["ratio"] + (1 - step["ratio"]) / 4)) / 100
        if step["ratio"] < more <= _LARGEST_RATIO:
            yield Try(
                f"{left} of the metric's limit is left, so more may go: `steps.{index}.ratio` {more:g} instead of "
                f"{step['ratio']:g}.",
                ((f"steps.{index}.ratio", more),),
            )


def _on_a_phone(report: Report) -> Iterator[Try]:
    out, path = _given(report, "--out"), report.compressed[0].artifact.path if report.compressed else ""
    if out is not None and path.endswith(".onnx"):
        yield Try(
            "See which nodes a phone's accelerator takes of the file.",
            command=("compressor", "check", f"{out}/{path}", "--target", "xnnpack"),
        )


def _lost_by_rounding(report: Report, file: Measurement, limit: float) -> bool:
    """Whether the model itself, before it was rounded, is within the limit."""
    sign = 1.0 if file.score.higher_is_better else -1.0
    return sign * (report.original.torch_score.value - file.torch_score.value) <= limit


def _file(report: Report, name: str) -> Measurement | None:
    """The file that a limit is about; the only one if it names none."""
    files = [file for file in report.compressed if name in ("", *file.artifact.files)]
    return files[0] if files else None


def _steps(report: Report) -> Sequence[dict[str, Any]]:
    return [step for step in report.recipe.get("steps", ()) if isinstance(step, dict)]


def _steps_with(report: Report, option: str) -> list[tuple[int, dict[str, Any]]]:
    """Steps by their places in which an option is a fraction."""
    return [(index, step) for index, step in enumerate(_steps(report)) if isinstance(step.get(option), float)]


def _exports(report: Report, file: str) -> list[tuple[int, dict[str, Any]]]:
    """Exports by their places, those of `file`; all if it is empty."""
    entries = enumerate(report.recipe.get("exports", ()))
    named = [(index, entry) for index, entry in entries if isinstance(entry, dict)]
    return [(index, entry) for index, entry in named if not file or file.startswith(f"{entry.get('name', 'model')}.")]


def _changed_exports(report: Report, file: str, option: str, value: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((f"exports.{index}.{option}", value) for index, _ in _exports(report, file)[:1])


def _sensitivity(report: Report, limit: float) -> tuple[str, ...]:
    task = _given(report, "--task")
    return () if task is None else ("compressor", "sensitivity", "--task", task, "--max-drop", f"{limit:g}")


def _given(report: Report, option: str) -> str | None:
    """The value of an option of the command that made the run."""
    words = report.command
    return words[words.index(option) + 1] if option in words[:-1] else None


def _whole(report: Report) -> tuple[str, ...]:
    return tuple(word for word in report.command if word != "--quick")


def command(report: Report, one: Try) -> tuple[str, ...]:
    """The words of the command that tries it; empty if the run was made from Python, or there is none."""
    if one.command or not one.changes or not report.command:
        return one.command
    words = list(report.command)
    if "--out" in words[:-1]:
        words[words.index("--out") + 1] += "-next"
    for key, value in one.changes:
        words += ["--set", f"{key}={_yaml(value)}"]
    return tuple(words)


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def _blocks(report: Report) -> Iterator[Block]:
    for one in tries(report):
        yield Text(one.text)
        if words := command(report, one):
            yield Code(shlex.join(words), "sh", command=True)


NEXT_STEPS: Section[Report] = Section(
    "What to try next", lambda report: tuple(_blocks(report)), last_on_terminal=True, leads=True
)
