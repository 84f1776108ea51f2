"""Times files on a phone: files and a program that runs them are pushed, timed there interleaved, and removed.

Every round runs one burst of each file in a new random order, each in a process of its own that loads the file afresh,
with a pause for the phone to cool down between rounds. See `compressor.measure.latency` for why interleaved.
"""

from __future__ import annotations

import random
import secrets
import shutil
import statistics as stdlib_statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import ExportError, UsageError
from compressor.measure.latency import CONFIDENCE, FEWEST_ROUNDS, summary
from compressor.measure.phone.device import HOME
from compressor.measure.statistics import speed_up
from compressor.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.measure.phone.device import Phone
    from compressor.measure.phone.runners import Runner, Subject
    from compressor.report import Latency, SpeedUp

_SILENT = Silent()


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
        phone: The phone; what is copied to it is removed afterwards.
        program: Runs the files there.
        subjects: The files; the first is the baseline.
        batch: Of the inputs, for the record.
        length: Of the inputs, for the record.
        threads: Of the runtime.
        rounds: Bursts of each file, at least `latency.FEWEST_ROUNDS`.
        runs: Timed runs in a burst.
        cool_down: Seconds of rest between rounds.
        push: Files to copy beside the runner, such as its libraries.
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
    folder = f"{HOME}/compressor-{secrets.token_hex(4)}"
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
