"""What rounding a model costs: seconds and memory of an export in fewer bits, beside its float export.

    python benchmarks/rounding_cost.py --task samples/minilm/task.py [--precision int8 int4 mixed]
        [--set rounding.file_bytes=15000000 ...] [--profile FILE]

The float export comes first, in the same process, and leaves its graph; what is measured then begins at that graph: the
comparison of the float file, rounding with all of its measurements, and the checks of the rounded file. A line for
each stage, then one for the export. Seconds are those of the clock and of the processor, all processes together. Memory
is by how much the process has grown at its peak, in parts of the model's parameters, and what its children hold of
their own at that time (a file is loaded in one of them first). Nothing is counted of libraries: a small model is
exported before. With --keep the last file stays. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import compressor
from compressor.errors import CompressorError
from compressor.formats import Job
from compressor.measure import size
from compressor.progress import Silent, SilentBar
from compressor.recipe import overrides
from compressor.testing import RandomTask, normal
from exporters import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator


_LOOK = 0.1
"""Seconds in which memory is looked at several times."""


def main() -> None:
    """Export, print one line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--precision", nargs="+", default=["int8", "int4", "mixed"])
    parser.add_argument("--set", nargs="*", default=["rounding.bits=5", "rounding.max_error=1"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where the last file goes")
    parser.add_argument("--profile", help="where the profile of the last export goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    task = compressor.load_task(options.task)
    model = task.model().eval()
    megabytes = size.count(model)[0] * 4 / 1e6
    shared: dict[tuple[object, ...], object] = {}
    with tempfile.TemporaryDirectory() as folder, _Children() as children:
        _export_a_small_model(Path(folder))
        for precision in ["float32", *options.precision]:
            path = Path(folder) / f"{precision}.onnx"
            chosen = onnx.Options(**_options(precision, options.set))
            before = _reset_peak(children)
            clock, processor = time.perf_counter(), _processor()
            profile = cProfile.Profile()
            stages = _Stages(before, megabytes, children)
            try:
                if options.profile:
                    profile.enable()
                artifact = onnx.export(Job(model, task, path, chosen, shared=shared, progress=stages))
            except CompressorError as error:
                print(f"{precision}: {error}", flush=True)
                continue
            finally:
                profile.disable()
            peak = stages.show()
            rounded = artifact.quantization
            print(
                f"{precision}: {artifact.bytes:,} B, {time.perf_counter() - clock:.0f} s by the clock, "
                f"{_processor() - processor:.0f} s of processor time, {peak:.0f} MB more at the peak, "
                f"{peak / megabytes:.1f} times the {megabytes:.0f} MB of the model"
                + (f", relative error {rounded.error:.4f}" if rounded else ""),
                flush=True,
            )
            if options.profile:
                profile.dump_stats(options.profile)
            if options.keep:
                shutil.copyfile(path, options.keep)


class _Stages(Silent):
    """Processor time and peak memory of an export by the first word of what its bar is told."""

    def __init__(self, before: int, megabytes: float, children: _Children) -> None:
        self._before, self._megabytes, self._children = before, megabytes, children
        self._word, self._since = "graph", _processor()
        self._found: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def bar(self, description: str, total: int | None) -> Iterator[SilentBar]:
        """A bar that tells of its stages."""
        yield self

    def advance(self, amount: int = 1, note: str = "") -> None:
        """A stage ends, another begins."""
        now = _processor()
        seconds, peak = self._found.get(self._word, (0.0, 0.0))
        highest = max(_status("VmHWM"), self._children.largest())
        self._found[self._word] = seconds + now - self._since, max(peak, (highest - self._before) / 1e3)
        self._word, self._since = note.split(maxsplit=1)[0] if note else self._word, now
        _reset_peak(self._children)

    def show(self) -> float:
        """Print what was found; gives the largest peak in MB."""
        self.advance()
        for word, (seconds, peak) in self._found.items():
            print(f"    {word}: {seconds:.1f} s, {peak:.0f} MB, {peak / self._megabytes:.1f} times the model")
        return max(peak for _, peak in self._found.values())


class _Children:
    """The most that this process and its children held together.

    Looked at in a process of its own, which no lock of this one stops.
    """

    process: ClassVar[subprocess.Popen[str]]

    _LOOKS = """
import pathlib, select, sys
parent, own = sys.argv[1], str(pathlib.Path('/proc/self').resolve().name)
def kilobytes(pid, *keys):
    lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.split(':')[0] in keys)
def children(pid):
    for thread in pathlib.Path(f'/proc/{pid}/task').iterdir():
        for child in (thread / 'children').read_text().split():
            if child != own:
                yield child
                yield from children(child)
largest = 0
while True:
    try:
        total = kilobytes(parent, 'VmRSS') + sum(kilobytes(child, 'RssAnon') for child in children(parent))
        largest = max(largest, total)
    except OSError:
        pass  # one has just ended
    if select.select([sys.stdin], [], [], 0.005)[0]:
        if not sys.stdin.readline():
            break
        print(largest, flush=True)
        largest = 0
"""

    def __enter__(self) -> _Children:
        _Children.process = subprocess.Popen(
            [sys.executable, "-c", self._LOOKS, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def largest(self) -> int:
        """KB since it was asked last."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def _export_a_small_model(folder: Path) -> None:
    """So that libraries are loaded, of exporting and of rounding."""
    axes = {0: "batch", 1: "time"}
    task = RandomTask({"x": axes}, {"y": axes}, normal(64))
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)).eval()
    options = onnx.Options(precision="int4", rounding={"max_error": 1.0})
    onnx.export(Job(model, task, folder / "small.onnx", options))


def _options(precision: str, settings: list[str]) -> dict[str, object]:
    """Options of the export; those of `rounding` about bits only for `mixed`."""
    if precision == "float32":
        return {"precision": precision}
    rounding: dict[str, object] = {}
    for text in settings:
        override = overrides.read(text)
        name = override.keys[-1]
        if precision == "mixed" or name not in ("bits", "file_bytes"):
            rounding[str(name)] = override.value
    return {"precision": precision, "rounding": rounding}


def _reset_peak(children: _Children) -> int:
    """KB that are held now, from which the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    children.largest()
    time.sleep(_LOOK)
    return children.largest()


def _status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


def _processor() -> float:
    """Seconds of this process, of its children that ended and of those that run."""
    running = 0
    for thread in Path("/proc/self/task").iterdir():
        watching = str(_Children.process.pid)
        for child in (child for child in (thread / "children").read_text().split() if child != watching):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            running += sum(int(field) for field in fields[11:15])  # its own, and those of its children
    return sum(os.times()[:4]) + running / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
