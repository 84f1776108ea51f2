"""MLflow: a run of an experiment, where `MLFLOW_TRACKING_URI` says, with the report's files."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.render.trackers.facts import Tracked

_LONGEST: Final = 500
"""Of a parameter's value, in characters; MLflow's servers take no longer one."""
_AT_ONCE: Final = 100
"""Parameters in one request."""
_EXPERIMENT: Final = "compressor"


def send(name: str, tracked: Tracked, folder: Path) -> str:
    """Make a run; gives its address."""
    import mlflow

    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys():
        mlflow.set_experiment(_EXPERIMENT)
    with mlflow.start_run(run_name=name) as run:
        settings = [(plain(key), value[:_LONGEST]) for key, value in tracked.parameters.items()]
        for start in range(0, len(settings), _AT_ONCE):
            mlflow.log_params(dict(settings[start : start + _AT_ONCE]))
        for point in tracked.points:
            mlflow.log_metric(plain(point.name), point.value, step=point.at)
        mlflow.log_metrics({plain(key): value for key, value in tracked.results.items()})
        for file in ("report.html", "report.json"):
            if (folder / file).is_file():
                mlflow.log_artifact(str(folder / file))
        return f"MLflow run {run.info.run_id} at {mlflow.get_tracking_uri()}"


def plain(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-./ ]", "_", name)
