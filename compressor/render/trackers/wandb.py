"""Weights & Biases: a run of a project, online or offline as `WANDB_MODE` and the client's own settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.render.trackers.facts import Tracked

_PROJECT: Final = "compressor"


def send(name: str, tracked: Tracked, folder: Path) -> str:
    """Make a run; gives its address, or its folder if it is offline."""
    import wandb

    run = wandb.init(
        name=name,
        config=tracked.parameters,
        project=wandb.setup().settings.project or _PROJECT,
        settings=wandb.Settings(silent=True),
    )
    with run:
        for curve in dict.fromkeys(point.name for point in tracked.points):
            run.define_metric(curve, step_metric=f"{curve} at")
        for point in tracked.points:  # a row each: wandb's own step must grow
            run.log({point.name: point.value, f"{point.name} at": point.at})
        run.summary.update(tracked.results)
        for file in ("report.html", "report.json"):
            if (folder / file).is_file():
                run.save(str(folder / file), base_path=str(folder), policy="now")
        return f"offline run in {run.dir}, for `wandb sync`" if run.offline else str(run.url)
