"""What probes of replaced architectures found: a table, the conditions, and the sentences not to miss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Group, Statement, Table, Text, Tone
from compressor.render.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.report import (
        Drop,
        Interval,
        Probe,
        ProbeLength,
        ProbeResult,
        ProbeScore,
        Report,
        StepReport,
        Verdict,
    )

VERDICTS: Final[dict[Verdict, str]] = {
    "kept": "kept",
    "lost": "LOST",
    "gained": "gained",
    "undecided": "undecided (within noise)",
    "neither": "neither learns it: no conclusion",
}
_IN_SHORT: Final[dict[Verdict, str]] = VERDICTS | {"undecided": "undecided", "neither": "neither"}

_MOST_SEEDS: Final = 100
"""That `compressor probe` takes."""


def group(probe: Probe) -> Group:
    """A probe as every view shows it."""
    return Group(title(probe), (table(probe), Text(conditions(probe), muted=True)))


def title(probe: Probe) -> str:
    """What is replaced by what."""
    modules = f" in {', '.join(probe.modules)}" if probe.modules else ""
    return f"{probe.original} ({probe.original_size}) → {probe.converted} ({probe.converted_size}){modules}"


def table(probe: Probe) -> Table:
    """One row a synthetic task: both accuracies, how much is lost, the verdict, and the same at an unseen length."""
    rows = tuple(
        (
            _described(result),
            _accuracy(result.trained.chance),
            _score(result.trained.original),
            _score(result.trained.converted),
            _drop(result.trained.drop),
            VERDICTS[result.trained.verdict],
            _longer(result.longer),
        )
        for result in probe.results
    )
    header = ("synthetic task", "chance", probe.original, probe.converted, "drop", "verdict", "twice as long")
    return Table(header, rows)


def conditions(probe: Probe) -> str:
    """How the numbers came about."""
    effort, first = probe.effort, probe.results[0]
    several = f"mean of {probe.seeds} seeds ± its 95 % interval (Student's; Welch's for the drop)"
    sizes = [form.count(number) for number in (first.parameters_original, first.parameters_converted)]
    return (
        f"Accuracy on new sequences, on the second half of the positions, {several if probe.seeds > 1 else '1 seed'}. "
        f"Both trained identically from random weights: width {effort['width']}, {sizes[0]} and {sizes[1]} parameters "
        f"besides embedding and readout; Adam, lr {effort['lr']:g}, at most {form.count(effort['steps'])} steps of "
        f"{effort['batch']} sequences, stopped when {form.percent(effort['solved'])} are right. Kept: all of the "
        f"drop's interval is at most {probe.margin:g}; lost: all of it is above."
    )


def statements(probe: Probe, who: str) -> list[Statement]:
    """What is lost, first; then what is not.

    Args:
        probe: What was found.
        who: What converts, at the start of a sentence.
    """
    trained = {verdict: [r for r in probe.results if r.trained.verdict == verdict] for verdict in VERDICTS}
    said = [Statement("bad", _lost(probe, result, who)) for result in trained["lost"]]
    said += [
        Statement(
            "bad",
            f"{who} loses {result.task} at lengths beyond those of training: {_apart(result.longer)} at length "
            f"{result.longer.length}, chance {_accuracy(result.longer.chance)}.",
        )
        for result in probe.results
        if result.trained.verdict != "lost" and result.longer.verdict == "lost"
    ]
    told: list[tuple[Verdict, Tone, str, str]] = [
        ("kept", "good", "{} keeps", ", on synthetic tasks."),
        ("gained", "good", "{} gains", ", on synthetic tasks."),
        ("undecided", "plain", "Undecided, within noise, whether {} keeps", f": {_what_would_tell(probe, trained)}."),
    ]
    for verdict, tone, text, ending in told:
        if trained[verdict]:
            said.append(Statement(tone, f"{text.format(who)} {_names(probe, trained[verdict])}{ending}"))
    learned = {result.task for result in probe.results if result.trained.verdict != "neither"}
    if silent := [result for result in trained["neither"] if result.task not in learned]:
        text = f"Neither {probe.original} nor {probe.converted} learned {_names(probe, silent)} in so few steps"
        said.append(Statement("plain", f"{text}, so nothing follows."))
    return said


def verdict(probe: Probe, who: str) -> Statement:
    """In one sentence: what is lost, or that nothing is that the original can learn.

    Args:
        probe: What was found.
        who: What converts, at the start of a sentence.
    """
    found = {verdict: _abilities(probe, verdict) for verdict in VERDICTS}
    if found["lost"]:
        lost = _joined(found["lost"])
        return Statement("bad", f"Verdict: {who} loses {lost}; it is safe for data that need none of that.")
    open_ = [ability for ability in found["undecided"] if ability not in found["kept"]]
    if open_:
        return Statement(
            "plain", f"Verdict: undecided whether {who} keeps {_joined(open_)}; nothing is known to be lost."
        )
    kept = _joined(found["kept"] + found["gained"])
    if not kept:
        return Statement("plain", f"Verdict: none on {who}, since neither side learned a task.")
    return Statement("good", f"Verdict: {who} is safe as far as synthetic tasks tell: {kept} kept.")


def _abilities(probe: Probe, verdict: Verdict) -> list[str]:
    """Of the tasks with that verdict, each once."""
    return list(dict.fromkeys(r.ability or r.task for r in probe.results if r.trained.verdict == verdict))


def _joined(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _what_would_tell(probe: Probe, trained: Mapping[Verdict, Sequence[ProbeResult]]) -> str:
    """How many seeds the undecided tasks need: the width of an interval falls with the root of their number."""
    drops = [result.trained.drop for result in trained["undecided"]]
    if any(drop.interval is None for drop in drops):
        return "one seed gives no interval; `compressor probe --seeds 5` does"
    needed = [_needed(probe, drop.value, drop.interval) for drop in drops if drop.interval is not None]
    if not needed or max(needed) > _MOST_SEEDS:
        return f"the difference is so close to {probe.margin:g}, which counts, that {_MOST_SEEDS} seeds may not tell"
    more = max(needed)
    return f"about {more} seeds would tell (`compressor probe --seeds {more}`, which trains the new ones only)"


def _needed(probe: Probe, value: float, interval: Interval) -> int:
    distance = abs(value - probe.margin)
    half = (interval.high - interval.low) / 2
    return math.ceil(probe.seeds * (half / distance) ** 2) if distance > half / _MOST_SEEDS else _MOST_SEEDS + 1


def of_step(step: StepReport) -> list[Statement]:
    """What the probes of a step of a run say, or that there were none."""
    said = [
        statement
        for probe in step.probes
        for statement in (verdict(probe, f"`{step.method}`"), *statements(probe, f"`{step.method}`"))
    ]
    names: dict[str, list[str]] = {}
    for skip in step.unprobed:
        names.setdefault(skip.reason, []).append(skip.name)
    for reason, layers in names.items():
        text = f"`{step.method}` replaced the architecture of {', '.join(layers)}. What the new one can no longer learn"
        said.append(Statement("plain", f"{text} was not probed: {reason}."))
    return said


def _lost(probe: Probe, result: ProbeResult, who: str) -> str:
    at = result.trained
    partly = at.converted.mean >= at.chance + probe.learned * (1 - at.chance)
    what = f"part of {result.task}, or learns it more slowly" if partly else result.task
    return (
        f"{who} loses {what} (to {result.needs}): accuracy {_accuracy(at.original.mean)} with {probe.original} "
        f"after {max(result.steps_original)} steps, {_accuracy(at.converted.mean)} with {probe.converted} after "
        f"{max(result.steps_converted)}, trained identically; chance {_accuracy(at.chance)}. "
        f"{result.meaning[0].upper()}{result.meaning[1:]} {'may' if partly else 'will'} suffer: look at the metric on "
        "cases that need it."
    )


def _described(result: ProbeResult) -> str:
    patience = f", {result.patience} times the steps" if result.patience > 1 else ""
    return f"{result.task}, {result.difficulty}, length {result.trained.length}{patience}"


def _apart(at: ProbeLength) -> str:
    return f"{_accuracy(at.original.mean)} → {_accuracy(at.converted.mean)}"


def _names(probe: Probe, results: Sequence[ProbeResult]) -> str:
    """The tasks, with their difficulty if there are several of a name."""
    every = [result.task for result in probe.results]
    return ", ".join(
        f"{result.task} ({result.difficulty})" if every.count(result.task) > 1 else result.task for result in results
    )


def _longer(at: ProbeLength) -> str:
    return f"{_apart(at)} (chance {_accuracy(at.chance)}): {_IN_SHORT[at.verdict]}"


def _score(score: ProbeScore) -> str:
    text = _accuracy(score.mean)
    return text if score.interval is None else f"{text} ± {_accuracy(score.interval.high - score.mean)}"


def _drop(drop: Drop) -> str:
    text = _accuracy(drop.value)
    return text if drop.interval is None else f"{text} ± {_accuracy(drop.interval.high - drop.value)}"


def _accuracy(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000")


def _section(report: Report) -> tuple[Group, ...]:
    return tuple(group(probe) for step in report.steps for probe in step.probes)


PROBES: Section[Report] = Section("What the new architecture can still learn", _section)
