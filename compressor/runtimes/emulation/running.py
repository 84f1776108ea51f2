"""Runs files on the emulated machine."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
from compressor.progress import Progress, Silent
from compressor.runtimes import child
from compressor.runtimes.emulation.machine import ARCH, CPU, PYTHON

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from compressor.runtimes.emulation.machine import Machine

_SECONDS = 1200.0
_REMOTE = Path(__file__).parents[1] / "remote_script.py"
_SILENT = Silent()


@dataclass(frozen=True)
class Job:
    """A file and what it is given."""

    model: Path
    inputs: Sequence[NDArray[Any]]


Outcome = list["NDArray[Any]"] | str
"""What a file gave, or why it gave nothing."""


def run(machine: Machine, jobs: Sequence[Job], progress: Progress = _SILENT) -> tuple[list[Outcome], str]:
    """Run files on their inputs on the emulated machine.

    Where a file crashes it, those behind are run by a new one.

    Returns:
        What each job came to, and the runtime under emulation in words.

    Raises:
        ExportError: The machine does not even start.
    """
    runtime = "no ONNX Runtime"
    with tempfile.TemporaryDirectory() as work, progress.bar(f"running on emulated {ARCH}", len(jobs)) as bar:
        written = [_written(Path(work), index, job) for index, job in enumerate(jobs)]
        listing = Path(work) / "jobs.json"
        listing.write_text(json.dumps(written))
        done = 0
        while True:
            try:
                said = child.run(_command(machine, listing), seconds=_SECONDS, what=f"ONNX Runtime on emulated {ARCH}")
                runtime = json.loads(said.strip().splitlines()[-1])["runtime"]
            except ExportError as error:
                crashed = next((job for job in written if not _over(job)), None)
                started = crashed is not None and f"running {crashed['model']}" in error.message
                if crashed is None or not started:
                    raise
                Path(crashed["outputs"] + ".error").write_text(error.message)
            over = sum(map(_over, written))
            bar.advance(over - done)
            done = over
            if over == len(written):
                return [_outcome(job) for job in written], runtime


def _written(work: Path, index: int, job: Job) -> dict[str, str]:
    np.savez(work / f"{index}.inputs.npz", *job.inputs)
    return {
        "model": str(job.model.resolve()),
        "inputs": str(work / f"{index}.inputs.npz"),
        "outputs": str(work / f"{index}.outputs.npz"),
    }


def _command(machine: Machine, listing: Path) -> list[str]:
    environment = {"PYTHONPATH": str(machine.packages), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return [
        str(machine.qemu), "-L", str(machine.root), "-cpu", CPU,
        *(part for name, value in environment.items() for part in ("-E", f"{name}={value}")),
        # -P keeps this package's folder off the import path, where its module names could hide others.
        str(machine.root / "usr" / "bin" / f"python{PYTHON}"), "-P", str(_REMOTE), "outputs", str(listing),
    ]  # fmt: skip


def _over(job: Mapping[str, str]) -> bool:
    return Path(job["outputs"]).exists() or Path(job["outputs"] + ".error").exists()


def _outcome(job: Mapping[str, str]) -> Outcome:
    error = Path(job["outputs"] + ".error")
    if error.exists():
        return error.read_text()
    with np.load(job["outputs"]) as arrays:
        return [arrays[name] for name in arrays.files]
