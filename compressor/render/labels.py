"""What the files of a report are called in its tables and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.report import Artifact, Measurement, Report


def compressed(report: Report, index: int) -> str:
    """The name of compressed file `index`."""
    if len(report.compressed) == 1:
        return "compressed"
    return f"compressed {index + 1} ({_format(report.compressed[index].artifact)})"


def originals(report: Report) -> list[tuple[str, Measurement]]:
    """The original in every format in which something is compared with it, with its name."""
    formats = (report.original, *report.elsewhere)
    used = [original for number, original in enumerate(formats) if number == 0 or number in report.baselines]
    if len(used) == 1:
        return [("original", report.original)]
    return [(f"original ({_format(original.artifact)})", original) for original in used]


def every_file(report: Report) -> list[tuple[str, Measurement]]:
    """The originals, then the compressed files, each with its name."""
    after = [(compressed(report, index), measured) for index, measured in enumerate(report.compressed)]
    return [*originals(report), *after]


def _format(artifact: Artifact) -> str:
    return artifact.format if artifact.stream is None else f"{artifact.format}, step"
