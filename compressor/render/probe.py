"""What probes found, as plain text: a table, the conditions, and the sentences that a reader should not miss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Statement, Table

if TYPE_CHECKING:
    from compressor.report import Drop, Probe, ProbeLength, ProbeResult, ProbeScore, StepReport, Verdict

VERDICTS: Final[dict[Verdict, str]] = {
    "kept": "kept",
    "lost": "LOST",
    "gained": "gained",
    "undecided": "undecided (within noise)",
    "neither": "neither learns it: says nothing",
}


def title(probe: Probe) -> str:
    """What takes the place of what."""
    where = f" ({', '.join(probe.modules)})" if probe.modules else ""
    return f"{probe.original} → {probe.converted}{where}"


def table(probe: Probe) -> Table:
    """One row a synthetic task: both accuracies, how much is lost, the verdict, and the same at a length not seen."""
    rows = tuple(
        (
            f"{result.task}, {result.difficulty}",
            str(result.trained.length),
            _accuracy(result.trained.chance),
            _score(result.trained.original),
            _score(result.trained.converted),
            _drop(result.trained.drop),
            VERDICTS[result.trained.verdict],
            _longer(result.longer),
        )
        for result in probe.results
    )
    header = ("synthetic task", "length", "chance", "original", "converted", "drop", "verdict", "at a longer length")
    return Table(header, rows)


def conditions(probe: Probe) -> str:
    """How the numbers came about."""
    effort = probe.effort
    first = probe.results[0]
    sizes = [form.count(number) for number in (first.parameters_original, first.parameters_converted)]
    seeds = (
        "1 seed, so there are no intervals" if probe.seeds == 1 else f"{probe.seeds} seeds, 95 % intervals over them"
    )
    return (
        f"Accuracy on new sequences, on the second half of the positions; {seeds}. Both sides trained alike from random "
        f"weights: width {effort['width']}, Adam, lr {effort['lr']:g}, at most {form.count(effort['steps'])} steps of "
        f"{effort['batch']} sequences (more for easier forms), stopped when {form.percent(effort['solved'])} are right. "
        f"{sizes[0]} and {sizes[1]} parameters between embedding and readout. Kept: the whole interval of the drop is "
        f"at most {probe.margin:g}; lost: all of it is above."
    )


def statements(probe: Probe, who: str) -> list[Statement]:
    """What is lost, first; then what is not.

    Args:
        probe: What was found.
        who: What converts, at the start of a sentence.
    """
    found = [_lost(probe, result, who) for result in probe.results if result.trained.verdict == "lost"]
    found += [
        Statement("bad", f"{who} loses {result.task} beyond the trained length: {_apart(result.longer)}.")
        for result in probe.results
        if result.trained.verdict != "lost" and result.longer.verdict == "lost"
    ]
    for verdict, tone, text in (
        ("kept", "good", "keeps"),
        ("gained", "good", "gains"),
        ("undecided", "plain", "may lose, within noise:"),
    ):
        names = [result.task for result in probe.results if result.trained.verdict == verdict]
        if names:
            found.append(Statement(tone, f"{who} {text} {', '.join(names)} on synthetic tasks."))  # type: ignore[arg-type]
    silent = [result.task for result in probe.results if result.trained.verdict == "neither"]
    silent = [name for name in silent if all(other.trained.verdict == "neither" for other in _named(probe, name))]
    if silent:
        names = ", ".join(dict.fromkeys(silent))
        found.append(Statement("plain", f"Neither architecture learned {names}, which says nothing about {who}."))
    return found


def of_step(step: StepReport) -> list[Statement]:
    """What the probes of a step of a run say, or that there were none."""
    if step.unprobed:
        names = ", ".join(step.unprobed)
        text = f"`{step.method}` put another architecture in the place of {names}, and what that can no longer learn"
        return [Statement("plain", f"{text} was not probed.")]
    return [said for probe in step.probes for said in statements(probe, f"`{step.method}`")]


def _lost(probe: Probe, result: ProbeResult, who: str) -> Statement:
    at = result.trained
    text = (
        f"{who} loses {result.task}, the ability to {result.needs}: {probe.original}, came to "
        f"{_accuracy(at.original.mean)}, {probe.converted}, trained alike, to {_accuracy(at.converted.mean)} "
        f"(chance {_accuracy(at.chance)}). It means that {result.meaning}."
    )
    return Statement("bad", text)


def _apart(at: ProbeLength) -> str:
    means = f"{_accuracy(at.original.mean)} → {_accuracy(at.converted.mean)}"
    return f"{means} at length {at.length} (chance {_accuracy(at.chance)})"


def _named(probe: Probe, name: str) -> list[ProbeResult]:
    return [result for result in probe.results if result.task == name]


def _longer(at: ProbeLength) -> str:
    return f"{_apart(at)}: {VERDICTS[at.verdict]}"


def _score(score: ProbeScore) -> str:
    text = _accuracy(score.mean)
    return text if score.interval is None else f"{text} ± {_accuracy(score.interval.high - score.mean)}"


def _drop(drop: Drop) -> str:
    text = _accuracy(drop.value)
    return text if drop.interval is None else f"{text} ({form.between(drop.interval, _accuracy)})"


def _accuracy(value: float) -> str:
    return f"{value + 0.0:.3f}"
