"""The part of `compressor bench` that times files on a phone, over adb."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from compressor.measure.phone.runners import Runner, Subject
    from compressor.report import Latency, SpeedUp

    Inputs = Callable[[Path], tuple[tuple[Tensor, ...], int]]
    """Of a file -> its inputs, and how many positions one run takes."""

COOL_DOWN: Final = 2.0
"""Seconds of rest between rounds."""
_ANY: Final = "any"


@dataclass(frozen=True)
class PhoneOptions:
    """What the command line says of the phone."""

    serial: str
    runner: str | None
    push: tuple[Path, ...]
    shapes: str | None
    cool_down: float


@dataclass(frozen=True)
class Repeats:
    """How often files are run, and on what."""

    batch: int
    length: int
    threads: int
    rounds: int
    runs: int


def with_serial(arguments: "Sequence[str]") -> list[str]:
    """The arguments, with a word for any phone after an `--adb` that has no serial number."""
    completed: list[str] = []
    for index, argument in enumerate(arguments):
        completed.append(argument)
        if argument == "--adb":
            following = arguments[index + 1] if index + 1 < len(arguments) else "-"
            if following.startswith("-") or Path(following).is_file():
                completed.append(_ANY)
    return completed


def time_on_phone(
    paths: "Sequence[Path]", options: PhoneOptions, inputs: "Inputs", repeats: Repeats
) -> "tuple[Sequence[Latency], Sequence[SpeedUp], str]":
    """Latencies, speed-ups, and the serial number of the phone.

    Raises:
        UsageError: There is no program for the phone, it does not run a file, or a file to push is missing.
    """
    if options.runner is None:
        raise UsageError(
            "a phone needs a program that runs the files",
            hint="--runner onnxruntime_perf_test or benchncnn, built for the phone, or --runner python:COMMAND; see "
            "docs/guides/on-a-phone.md",
        )
    for extra in options.push:
        if not extra.is_file():
            raise UsageError(f"there is no file `{extra}`", hint="--push copies files beside the runner")
    from compressor.cli.progress import Terminal
    from compressor.measure.phone.device import Phone
    from compressor.measure.phone.runners import runner
    from compressor.measure.phone.timing import compare

    program = runner(options.runner, options.shapes)
    for path in paths:
        if path.suffix not in program.suffixes:
            raise UsageError(
                f"{program.name} does not run `{path}`", hint=f"it runs files in {' or '.join(program.suffixes)}"
            )
    device = Phone.connect(None if options.serial == _ANY else options.serial)
    subjects, length = _subjects(paths, program, inputs, repeats.length)
    with Terminal() as progress:
        timed, ratios = compare(
            device,
            program,
            subjects,
            batch=repeats.batch,
            length=length,
            threads=repeats.threads,
            rounds=repeats.rounds,
            runs=repeats.runs,
            cool_down=options.cool_down,
            push=options.push,
            progress=progress,
        )
    return timed, ratios, device.serial


def _subjects(paths: "Sequence[Path]", program: "Runner", inputs: "Inputs", length: int) -> "tuple[list[Subject], int]":
    """The files with what they are run on, and how many positions one run takes."""
    from compressor.measure.phone.runners import Subject

    if not program.takes_inputs:
        return [Subject(path, {}) for path in paths], length
    from compressor.runtimes.onnx_runtime import OnnxFile

    subjects = []
    for path in paths:
        tensors, length = inputs(path)
        subjects.append(Subject(path, OnnxFile(path).feed(tensors)))
    return subjects, length
