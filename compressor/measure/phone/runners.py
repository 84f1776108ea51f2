"""Programs that run exported files on a phone: ONNX Runtime's, ncnn's, or a Python there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError, UsageError
from compressor.measure.latency import WARMUP_RUNS
from compressor.measure.phone.device import last_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from compressor.measure.phone.device import Phone

_REMOTE = Path(__file__).parents[2] / "runtimes" / "remote_script.py"


@dataclass(frozen=True)
class Subject:
    """A file to time."""

    path: Path
    inputs: Mapping[str, NDArray[Any]]
    """What it is run on, by the names of its inputs; empty if the runner makes its own."""


class Runner(ABC):
    """A program that runs on the phone."""

    name: str
    """In reports."""
    suffixes: tuple[str, ...]
    """Of the files that it runs."""
    takes_inputs = True
    """It is given inputs; it makes them up otherwise."""
    warmup: int
    """Runs before those that are timed."""

    def lay(self, folder: Path, subject: Subject) -> None:
        """Put a file and its inputs into a folder of their own."""
        shutil.copyfile(subject.path, folder / f"model{subject.path.suffix}")

    @abstractmethod
    def stage(self, folder: Path) -> None:
        """Put the program itself into the folder that is pushed."""

    @abstractmethod
    def burst(self, phone: Phone, folder: str, index: int, subject: Subject, *, threads: int, runs: int) -> list[float]:
        """Milliseconds of some runs of one file on the phone, in a process of its own."""


class OnnxRuntimeRunner(Runner):
    """`onnxruntime_perf_test`, which reads inputs from files beside the model and writes a line for each run."""

    suffixes = (".onnx", ".ort")
    warmup = 1

    def __init__(self, binary: Path) -> None:
        """Of a program built for the phone."""
        self.name = binary.name
        self._binary = binary

    def stage(self, folder: Path) -> None:
        """The program, called `runner`."""
        shutil.copyfile(self._binary, folder / "runner")

    def lay(self, folder: Path, subject: Subject) -> None:
        """The file, and its inputs as protocol buffers."""
        from onnx import numpy_helper

        super().lay(folder, subject)
        (folder / "test_data_set_0").mkdir()
        for index, (name, array) in enumerate(subject.inputs.items()):
            tensor = numpy_helper.from_array(array, name)
            (folder / "test_data_set_0" / f"input_{index}.pb").write_bytes(tensor.SerializeToString())

    def burst(self, phone: Phone, folder: str, index: int, subject: Subject, *, threads: int, runs: int) -> list[float]:
        """Seconds stand in the second column."""
        result = f"{index}/result.csv"
        model = f"{index}/model{subject.path.suffix}"
        command = f"./runner -e cpu -m times -r {runs} -x {threads} -y 1 {model} {result}"
        phone.shell(
            f"cd {folder} && rm -f {result} && LD_LIBRARY_PATH=. {command}", what=f"{self.name} on {subject.path}"
        )
        with tempfile.TemporaryDirectory() as work:
            pulled = Path(work) / "result.csv"
            phone.pull(f"{folder}/{result}", pulled)
            rows = [line.split(",") for line in pulled.read_text().splitlines()]
        found = [float(row[1]) * 1e3 for row in rows if len(row) >= 2 and _is_number(row[1])]
        return _enough(found, runs, self.name, subject, "\n".join(map(",".join, rows)))


class NcnnRunner(Runner):
    """`benchncnn`, which fills a network with zeros and tells the least, largest and mean time of its runs."""

    suffixes = (".param",)
    takes_inputs = False
    warmup = 8
    _TOLD = re.compile(r"min =\s*([0-9.]+)\s+max =\s*([0-9.]+)\s+avg =\s*([0-9.]+)")

    def __init__(self, binary: Path, shapes: str) -> None:
        """Of a program built for the phone.

        Args:
            binary: The program.
            shapes: Of the inputs, such as `[40,20],[1]`, the innermost axis first.
        """
        self.name = f"{binary.name} (weights of zeros, means of bursts)"
        self._binary = binary
        self._shapes = shapes

    def stage(self, folder: Path) -> None:
        """The program, called `runner`."""
        shutil.copyfile(self._binary, folder / "runner")

    def burst(self, phone: Phone, folder: str, index: int, subject: Subject, *, threads: int, runs: int) -> list[float]:
        """The mean of the burst."""
        given = f"param={index}/model.param shape={shlex.quote(self._shapes)}"
        said = phone.shell(
            f"cd {folder} && LD_LIBRARY_PATH=. ./runner {runs} {threads} 0 -1 0 {given}",
            what=f"{self.name} on {subject.path}",
        )
        return _enough([float(means) for _, _, means in self._TOLD.findall(said)], 1, self.name, subject, said)


class PythonRunner(Runner):
    """ONNX Runtime's Python package on the phone, such as in Termux."""

    suffixes = (".onnx", ".ort")
    warmup = WARMUP_RUNS

    def __init__(self, command: str) -> None:
        """Of the command that starts Python there."""
        self.name = "ONNX Runtime's Python package"
        self._command = command

    def stage(self, folder: Path) -> None:
        """The script that Python runs."""
        shutil.copyfile(_REMOTE, folder / "runner.py")

    def lay(self, folder: Path, subject: Subject) -> None:
        """The file, and its inputs."""
        super().lay(folder, subject)
        arrays: Any = list(subject.inputs.values())
        np.savez(folder / "inputs.npz", *arrays)

    def burst(self, phone: Phone, folder: str, index: int, subject: Subject, *, threads: int, runs: int) -> list[float]:
        """The script prints them."""
        model = f"{folder}/{index}/model{subject.path.suffix}"
        command = f"{folder}/runner.py time {model} {folder}/{index}/inputs.npz {threads} {self.warmup} {runs}"
        said = phone.shell(f"{self._command} {command}", what=f"Python on {subject.path}")
        line = next((line for line in reversed(said.splitlines()) if line.startswith("{")), "{}")
        facts = json.loads(line)
        self.name = f"{facts.get('runtime', self.name)} of Python"
        return _enough(list(facts.get("ms", [])), runs, "the script", subject, said)


def runner(word: str, shapes: str | None) -> Runner:
    """The runner that the user names: a binary of a known name, or `python:COMMAND`.

    Raises:
        UsageError: It is neither, or `shapes` is given or missing against its nature.
    """
    kind, _, command = word.partition(":")
    binary = Path(word)
    found: Runner
    if kind == "python" and command:
        found = PythonRunner(command)
    elif not binary.is_file():
        raise UsageError(
            f"there is no runner `{word}`",
            hint="give onnxruntime_perf_test or benchncnn as built for the phone, or python:COMMAND",
        )
    elif "perf_test" in binary.name:
        found = OnnxRuntimeRunner(binary)
    elif "benchncnn" in binary.name:
        if shapes is None:
            raise UsageError(
                "benchncnn has to be told the shapes of the inputs",
                hint='innermost axis first, such as --shapes "[40,20]" for 20 steps of 40 features',
            )
        return NcnnRunner(binary, shapes)
    else:
        raise UsageError(
            f"what kind of runner is `{binary.name}`?",
            hint="its name has to hold `perf_test` (ONNX Runtime's) or `benchncnn` (ncnn's), or give python:COMMAND",
        )
    if shapes is not None:
        raise UsageError("`--shapes` is for benchncnn", hint="leave it out: other runners get the inputs themselves")
    return found


def _enough(found: list[float], wanted: int, name: str, subject: Subject, said: str) -> list[float]:
    if len(found) != wanted or not all(value > 0.0 for value in found):
        raise ExportError(
            f"{name} told the time of {len(found)} runs of {subject.path}, not of {wanted}{last_lines(said)}",
            hint="is it of a version that this one knows?",
        )
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
