"""TensorBoard: an event file in the run's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.render.trackers.facts import Tracked


def send(name: str, tracked: Tracked, folder: Path) -> str:
    """Write the event file; gives the command that shows it."""
    from torch.utils.tensorboard import SummaryWriter

    place = folder / "tensorboard"
    with SummaryWriter(str(place)) as writer:
        rows = "".join(f"| {key} | {value} |\n" for key, value in tracked.parameters.items())
        writer.add_text(f"{name}/settings", f"| setting | value |\n|---|---|\n{rows}")
        writer.add_text(f"{name}/report", tracked.text)
        for point in tracked.points:
            writer.add_scalar(point.name, point.value, point.at)
        for key, value in tracked.results.items():
            writer.add_scalar(f"results/{key}", value, 0)
    return f"tensorboard --logdir {place}"
