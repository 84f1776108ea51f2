"""A finished run in the place where people keep their experiments: a view of its report, by that tool's own client.

Where it goes (a folder, a server, offline or not) is what the client's own settings say.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from compressor.errors import OutputError, UsageError
from compressor.render.trackers.facts import tracked

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.report import Report

Tracker = Literal["tensorboard", "mlflow", "wandb"]
"""Each is a module of this package, an extra of the distribution, and the name of its client."""


def need(name: Tracker) -> None:
    """Refuse a tracker whose client is not installed.

    Raises:
        UsageError: It is not; the hint names the extra.
    """
    if importlib.util.find_spec(name) is None:
        raise UsageError(
            f"`--log {name}` needs the package `{name}`, which is not installed",
            hint=f"pip install 'edge-compressor[{name}]'",
        )


def send(name: Tracker, report: Report, folder: Path) -> str:
    """Send a run's curves and results.

    Args:
        name: The tracker.
        report: Of the run.
        folder: Of the run; the files of the report go along if the tracker keeps files.

    Returns:
        Where it is, in words.

    Raises:
        UsageError: The client is not installed.
        OutputError: The client failed; the run itself is kept.
    """
    need(name)
    module = import_module(f"{__name__}.{name}")
    try:
        place: str = module.send(report.name, tracked(report), folder)
    except Exception as error:  # the clients' exceptions, those of their networks among them, have no common base
        raise OutputError(
            f"{name} failed: {error or type(error).__name__}",
            hint=f"the run is finished and kept in {folder}; `compressor report {folder} --log {name}` sends it again",
        ) from error
    return place
