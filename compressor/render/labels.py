"""What the files of a report are called in its tables and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form

if TYPE_CHECKING:
    from compressor.report import Measurement, Report, Score


def compressed(report: Report, index: int) -> str:
    """The name of compressed file `index`."""
    if len(report.compressed) == 1:
        return "compressed"
    measured = report.compressed[index]
    modules = len({other.module for other in report.compressed})
    if modules == len(report.compressed):
        return f"compressed {measured.module}"
    return f"compressed {index // modules + 1} ({_what(measured)})"


def originals(report: Report) -> list[tuple[str, Measurement]]:
    """The original in every format in which something is compared with it, with its name."""
    formats = (report.original, *report.elsewhere)
    used = [original for number, original in enumerate(formats) if number == 0 or number in report.baselines]
    if len(used) == 1:
        return [("original", report.original)]
    if len({original.module for original in used}) == len(used):
        return [(f"original {original.module}", original) for original in used]
    return [(f"original ({_what(original)})", original) for original in used]


def every_file(report: Report) -> list[tuple[str, Measurement]]:
    """The originals, then the compressed files, each with its name."""
    after = [(compressed(report, index), measured) for index, measured in enumerate(report.compressed)]
    return [*originals(report), *after]


def resampled(score: Score) -> str:
    """What the interval of a metric is over: `370 samples`, or `12 groups of 370 samples`."""
    samples = form.plural(score.samples or 0, "sample")
    return f"{form.plural(score.groups, 'group')} of {samples}" if score.groups else samples


def _what(measured: Measurement) -> str:
    """Format, form and module of a file."""
    artifact = measured.artifact
    words = [measured.module, artifact.format, "step" if artifact.stream is not None else ""]
    return ", ".join(word for word in words if word)
