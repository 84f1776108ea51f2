"""Latency on a phone: files and a program that runs them are pushed with `adb`, timed there in turns, and pulled.

Every round runs one burst of each file in a new random order, each in a process of its own that loads the file afresh,
with a pause for the phone to cool down between rounds. See `compressor.measure.latency` for why in turns.
"""

from __future__ import annotations

import json
import random
import re
import secrets
import shlex
import shutil
import statistics as stdlib_statistics
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError, UsageError
from compressor.measure.latency import CONFIDENCE, FEWEST_ROUNDS, WARMUP_RUNS, summary
from compressor.measure.statistics import speed_up
from compressor.progress import Progress, Silent
from compressor.runtimes import child

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from compressor.report import Latency, SpeedUp

_HOME = "/data/local/tmp"
_SECONDS = 600.0
_QUICK = 60.0
_LAST_LINES = 8
_REMOTE = Path(__file__).parents[1] / "runtimes" / "remote_script.py"
_SILENT = Silent()
_ADVICE = {
    "unauthorized": "unlock the phone and allow USB debugging for this computer, then try again",
    "offline": "plug it in again, or run `adb kill-server`, then try again",
    "no permissions": "let udev give you the device (package android-sdk-platform-tools-common), then plug it in again",
}
_EXITS = {
    126: "is the runner built for the phone's processor, and can it be executed?",
    127: "is the runner built for the phone's processor, and are its libraries there? --push FILE lays one beside it",
}


@dataclass(frozen=True)
class Phone:
    """One phone, by way of `adb`."""

    serial: str

    @classmethod
    def connect(cls, serial: str | None) -> Phone:
        """The phone of a serial number, or the only one.

        Raises:
            UsageError: There is no `adb`, no device, no such device, several of them, or it is not ready.
        """
        if shutil.which("adb") is None:
            raise UsageError(
                "there is no `adb` on the PATH", hint="install Android's platform tools (Debian: apt-get install adb)"
            )
        listed = child.run(["adb", "devices"], seconds=_QUICK, what="`adb devices`").splitlines()
        pairs = [line.split(maxsplit=1) for line in listed[1:] if line.strip() and not line.startswith("*")]
        states = {pair[0]: pair[1].strip() if len(pair) == 2 else "unknown" for pair in pairs}
        shown = ", ".join(f"{name} ({state})" for name, state in states.items())
        if not states:
            raise UsageError(
                "no phone is connected",
                hint="plug one in and turn USB debugging on in its developer options; `adb devices` lists it then",
            )
        if serial is None and len(states) > 1:
            raise UsageError(f"{len(states)} phones are connected: {shown}", hint="name one: --adb SERIAL")
        chosen = next(iter(states)) if serial is None else serial
        if chosen not in states:
            raise UsageError(f"no phone `{chosen}` is connected", hint=f"`adb devices` lists {shown}")
        if states[chosen] != "device":
            advice = next((text for word, text in _ADVICE.items() if states[chosen].startswith(word)), None)
            raise UsageError(
                f"phone {chosen} is not ready: {states[chosen]}",
                hint=advice or "it has to be listed as `device` by `adb devices`",
            )
        return cls(chosen)

    def push(self, source: Path, target: str) -> None:
        """Copy a file, or a folder as `target`, which is not there yet."""
        self._adb("push", str(source), target, what="pushing files to the phone", hint=f"is there space in {_HOME}?")

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the phone."""
        self._adb("pull", source, str(target), what="pulling the results from the phone")

    def shell(self, command: str, *, what: str) -> str:
        """What a command prints; raises `ExportError` with its last lines where it fails there."""
        # Old phones do not hand the exit status on, so it is printed.
        said = self._adb("shell", f"({command}) 2>&1; code=$?; echo; echo exit status $code", what=what)
        text, _, code = said.rstrip().rpartition("exit status ")
        if not code.isdigit():
            raise ExportError(f"{what} ended before its time{_tail(said)}", hint="is the phone still connected?")
        if code != "0":
            raise ExportError(
                f"{what} failed (exit status {code}){_tail(text)}",
                hint=_EXITS.get(int(code), "its last lines tell why; a code above 128 is that of a crash"),
            )
        return text

    def facts(self) -> dict[str, str]:
        """Model, Android version and processor, as far as the phone tells."""
        names = {"model": "ro.product.model", "android": "ro.build.version.release", "abi": "ro.product.cpu.abi"}
        listed = "; ".join(f"getprop {key} 2>/dev/null || echo" for key in names.values())
        lines = [line.strip() for line in self.shell(listed, what="asking the phone for its model").splitlines()]
        return {"serial": self.serial} | dict(zip(names, [*lines, "", "", ""], strict=False))

    def _adb(self, *arguments: str, what: str, hint: str = "") -> str:
        return child.run(["adb", "-s", self.serial, *arguments], seconds=_SECONDS, what=what, hint=hint)


@dataclass(frozen=True)
class Subject:
    """A file to time."""

    path: Path
    inputs: Mapping[str, NDArray[Any]]
    """What it is run on, by the names of its inputs; empty where the runner makes them up."""


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


def compare(
    phone: Phone,
    program: Runner,
    subjects: Sequence[Subject],
    *,
    batch: int,
    length: int,
    threads: int,
    rounds: int,
    runs: int,
    cool_down: float,
    push: Sequence[Path] = (),
    seed: int = 0,
    progress: Progress = _SILENT,
) -> tuple[list[Latency], list[SpeedUp]]:
    """Latency of each file on the phone, and how much faster than the first each other one is.

    Args:
        phone: The phone; what is laid on it is removed afterwards.
        program: Runs the files there.
        subjects: The files; the first is the baseline.
        batch: Of the inputs, for the record.
        length: Of the inputs, for the record.
        threads: Of the runtime.
        rounds: Bursts of each file, at least `latency.FEWEST_ROUNDS`.
        runs: Timed runs in a burst.
        cool_down: Seconds of rest between rounds.
        push: Files to lay beside the runner, such as its libraries.
        seed: Of the order of the files.
        progress: Told of each round.

    Raises:
        UsageError: Too few rounds.
        ExportError: The phone, the runner or a file failed; with the last lines.
    """
    if rounds < FEWEST_ROUNDS:
        raise UsageError(
            f"rounds is {rounds}", hint=f"an interval of {CONFIDENCE:.0%} needs {FEWEST_ROUNDS} rounds or more"
        )
    folder = f"{_HOME}/compressor-{secrets.token_hex(4)}"
    facts = phone.facts()
    order = random.Random(seed)
    bursts: list[list[list[float]]] = [[] for _ in subjects]
    with progress.bar("measuring on the phone", total=rounds) as bar:
        try:
            _lay(phone, folder, program, subjects, push)
            for number in range(rounds):
                if number and cool_down:
                    time.sleep(cool_down)
                for index in order.sample(range(len(subjects)), len(subjects)):
                    found = program.burst(phone, folder, index, subjects[index], threads=threads, runs=runs)
                    bursts[index].append(found)
                bar.advance()
        finally:
            _remove(phone, folder)
    where = facts["model"] or "a phone that does not name itself"
    told = ", ".join(part for part in (facts["android"] and f"Android {facts['android']}", facts["abi"]) if part)
    runtime = f"{program.name} on {where}" + (f" ({told})" if told else "")
    latencies = [
        summary(timed, warmup=program.warmup, batch=batch, length=length, threads=threads, runtime=runtime)
        for timed in bursts
    ]
    medians = [[stdlib_statistics.median(burst) for burst in timed] for timed in bursts]
    return latencies, [speed_up(medians[0], other, confidence=CONFIDENCE) for other in medians[1:]]


def _lay(phone: Phone, folder: str, program: Runner, subjects: Sequence[Subject], push: Sequence[Path]) -> None:
    with tempfile.TemporaryDirectory() as work:
        staged = Path(work) / "staged"
        staged.mkdir()
        program.stage(staged)
        for extra in push:
            shutil.copyfile(extra, staged / extra.name)
        for index, subject in enumerate(subjects):
            own = staged / str(index)
            own.mkdir()
            program.lay(own, subject)
        for path in (staged, *staged.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.name == "runner" else 0o644)
        phone.push(staged, folder)
    phone.shell(
        f"chmod 755 {folder} && (chmod 755 {folder}/runner 2>/dev/null || true)", what="making the runner ready"
    )


def _remove(phone: Phone, folder: str) -> None:
    """Leave nothing on the phone; a phone that is gone by now is not what the user wants to read about."""
    try:
        phone.shell(f"rm -rf {folder}", what="removing the files from the phone")
    except ExportError:
        return


def _enough(found: list[float], wanted: int, name: str, subject: Subject, said: str) -> list[float]:
    if len(found) != wanted or not all(value > 0.0 for value in found):
        raise ExportError(
            f"{name} told the time of {len(found)} runs of {subject.path}, not of {wanted}{_tail(said)}",
            hint="is it of a version that this one knows?",
        )
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _tail(said: str) -> str:
    lines = [line.rstrip() for line in said.splitlines() if line.strip()]
    return "; its last lines:\n" + "\n".join(f"  {line}" for line in lines[-_LAST_LINES:]) if lines else ""
