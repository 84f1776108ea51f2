"""What heads and feed-forward width are worth: a sentence encoder trained by others, measured on the exported files.

    python samples/minilm/fetch.py
    python benchmarks/heads.py scores            # half of the heads by every score, on the validation sentences
    python benchmarks/heads.py files FOLDER      # docs/results/heads.md; files in FOLDER are not made again
    python benchmarks/heads.py files FOLDER --retrained            # three budgets of heads, retrained
    python benchmarks/heads.py files FOLDER --retrained low-rank   # of low rank: docs/results/low-rank.md

Nothing is retrained but the rows that say so. Latencies are those of ONNX Runtime on one thread, all files interleaved
in one process; the speed-up has a 95 % interval.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compressor.files import write_whole
from compressor.formats import Job
from compressor.measure import accuracy, latency, size
from compressor.methods.base import Context, Method, State
from compressor.methods.heads import Heads
from compressor.methods.low_rank_attention import LowRankAttention
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.progress import Silent
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.forwards import TorchForward
from compressor.task.loading import load
from exporters.onnx import Options, export

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.report import Score, SpeedUp
    from compressor.task.guard import GuardedTask

TASK = "samples/minilm/task.py"
CPU = torch.device("cpu")
SCORES = ("weight", "activation", "sensitivity", "taylor", "random")


def heads(keep: int, *, compensate: bool = True, score: str = "activation") -> Method:
    """Of the 12 heads of each layer."""
    return Heads(keep=keep, score=score, compensate=compensate)


def width(ratio: float, *, compensate: bool = True) -> Method:
    """Of the 1,536 features between the two layers of each feed-forward network."""
    return Magnitude(prune="units", ratio=ratio, round_to=8, targets=("*.widen",), compensate=compensate)


ROWS: dict[str, tuple[Method, ...]] = {
    "original": (),
    "half of the heads": (heads(6, compensate=False),),
    "half of the heads, compensated": (heads(6),),
    "half of heads and width, compensated": (heads(6), width(0.5)),
    "a third of the heads, compensated": (heads(8),),
    "a third of heads and width, compensated": (heads(8), width(1 / 3)),
    "half of heads and width": (heads(6, compensate=False), width(0.5, compensate=False)),
    "a third of the heads": (heads(8, compensate=False),),
    "a third of heads and width": (heads(8, compensate=False), width(1 / 3, compensate=False)),
}
SHORT = Retrain(epochs=1, max_batches=100, lr=1e-4, schedule="cosine", warmup=0.1)
"""100 batches of 32 sentences: some minutes of one core."""
RETRAINED: dict[str, dict[str, tuple[Method, ...]]] = {
    "heads": {
        "original": (),
        "a third of the heads, retrained": (heads(8), SHORT),
        "half of the heads, retrained": (heads(6), SHORT),
        "two thirds of the heads, retrained": (heads(4), SHORT),
        "half of heads and width, compensated and retrained": (heads(6), width(0.5), Retrain(epochs=1, lr=1e-4)),
    },
    "low-rank": {
        "original": (),
        "attention to 75 %, retrained": (LowRankAttention(parameters=0.75), SHORT),
        "attention to 50 %, retrained": (LowRankAttention(parameters=0.5), SHORT),
        "attention to 25 %, retrained": (LowRankAttention(parameters=0.25), SHORT),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("scores")
    making = commands.add_parser("files")
    making.add_argument("folder", type=Path)
    making.add_argument("--rows", type=int, default=len(ROWS), help="only the first so many")
    making.add_argument(
        "--retrained", nargs="?", const="heads", choices=RETRAINED, help="these rows instead, some minutes each"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = load(TASK)
    if options.command == "scores":
        compare_scores(task)
    else:
        rows = RETRAINED[options.retrained] if options.retrained else dict(list(ROWS.items())[: options.rows])
        compare_files(task, options.folder, rows)


def compare_scores(task: GuardedTask) -> None:
    """A row for each score, as it is and compensated."""
    model = task.model()
    for score in SCORES:
        for compensate in (False, True):
            state = carried_out(task, model, (heads(6, compensate=compensate, score=score),))
            found = accuracy.score(task, TorchForward(state.model, CPU), validation=True)
            print(f"| {score}{', compensated' if compensate else ''} | {row(found)} |", flush=True)


def compare_files(task: GuardedTask, folder: Path, rows: dict[str, tuple[Method, ...]]) -> None:
    """Makes, examines and times a file for each row."""
    model, paths, facts = task.model(), [], []
    for label, steps in rows.items():
        path = folder / f"{label.replace(', ', '-').replace(' ', '-')}.onnx"
        record = path.with_suffix(".json")
        if not record.is_file() or not path.is_file():
            state = carried_out(task, model, steps)
            export(Job(copy.deepcopy(state.model), task, path, Options()))
            found = accuracy.score(task, OnnxFile(path))
            content = {"row": row(found), "parameters": size.count(state.model)[0]}
            write_whole(record, json.dumps(content).encode())
        paths.append(path)
        facts.append(json.loads(record.read_text()))
        print(label, facts[-1], flush=True)
    timed(task, list(rows), paths, facts)


def timed(task: GuardedTask, labels: Sequence[str], paths: Sequence[Path], facts: Sequence[dict[str, Any]]) -> None:
    """The table: sizes, latencies at the typical length, and scores."""
    inputs = [task.example(1, task.length)] * len(paths)
    latencies, speedups = latency.compare(paths, inputs, batch=1, length=task.length, max_seconds=90.0)
    print("| | parameters | file | p50 | speed-up | accuracy of the probe | cosine | rank correlation |")
    print("|---|---|---|---|---|---|---|---|")
    for index, (label, path) in enumerate(zip(labels, paths, strict=True)):
        fact, mebibytes = facts[index], path.stat().st_size / 2**20
        ratio = f"{speedups[index - 1].ratio:.2f}x {interval(speedups[index - 1])}" if index else ""
        millions = f"{fact['parameters'] / 1e6:.1f} M"
        print(
            f"| {label} | {millions} | {mebibytes:.1f} MiB | {latencies[index].p50:.2f} ms | {ratio} | {fact['row']} |"
        )


def carried_out(task: GuardedTask, model: torch.nn.Module, steps: Sequence[Method]) -> State:
    """The steps on a copy of the model, with the seed 0."""
    context = Context(task, model, CPU, torch.Generator().manual_seed(0), Silent())
    state = State(copy.deepcopy(model))
    for step in steps:
        state = step.apply(state, context).state
    return state


def interval(speedup: SpeedUp) -> str:
    return f"({speedup.interval.low:.2f} to {speedup.interval.high:.2f})"


def row(score: Score) -> str:
    parts = list(score.parts.values())
    return f"{100 * score.value:.1f} % | {parts[1]:.3f} | {parts[2]:.3f}"


if __name__ == "__main__":
    main()
