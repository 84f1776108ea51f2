"""What of a recurrent layer others can learn: fresh layers fitted to its outputs, errors by position.

    python benchmarks/layer_fits.py --task samples/g2p/task.py --layer encoder
    python benchmarks/layer_fits.py --task samples/speaker_encoder/task.py --layer lstm --batches 24 --steps 150

Every candidate reads what the old layer reads and is trained by `fit`, as `convert` does it: Adam, the same batches,
steps and highest learning rate. `same` is a layer of the old kind with random weights: how near it gets tells what the
data, the steps and the loss allow, so what a candidate falls behind is its architecture's. Errors are squared distances
over the variance of the old outputs: 0 is the same, 1 is a constant. Every fourth batch is held out. Of a layer with
several inside (`num_layers`), `--index` says which.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.methods.conversion_targets import builder  # noqa: E402
from compressor.methods.convert import Convert  # noqa: E402
from compressor.nn.converted.layer import in_turn  # noqa: E402
from compressor.surgery.converting.conversion import samples_of  # noqa: E402
from compressor.surgery.refit.calibration import calls, evaluating  # noqa: E402
from compressor.task.loading import load  # noqa: E402
from compressor.training.layer_fitting import Sample, Student, fit, split  # noqa: E402
from compressor.training.start_fitting import start  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

CANDIDATES: dict[str, dict[str, Any] | None] = {
    "same": None,
    "para_rnn": {"to": "para_rnn"},
    "para_rnn, twice the units": {"to": "para_rnn", "hidden": 512},
    "para_rnn, 2 layers of 192": {"to": "para_rnn", "hidden": 192, "depth": 2},
    "para_rnn, 3 layers of 160": {"to": "para_rnn", "hidden": 160, "depth": 3},
    "fsmn": {"to": "fsmn"},
    "fsmn, 3 memories": {"to": "fsmn", "dilations": [1, 1, 1]},
    "fsmn, 6 memories": {"to": "fsmn", "dilations": [1, 1, 1, 1, 1, 1]},
    "additive, 2 layers of 192": {"to": "additive", "hidden": 192, "depth": 2},
}
BINS = ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 64), (64, 4096))


def main() -> None:
    """Print a row for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--layer", required=True, help="name of a recurrent layer")
    parser.add_argument("--index", type=int, default=0, help="which of its layers")
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--random", action="store_true", help="from PyTorch's initial weights, not from least squares")
    parser.add_argument("--only", nargs="*", default=list(CANDIDATES), metavar="NAME", help="candidates")
    options = parser.parse_args()
    torch.manual_seed(0)
    task = load(str(options.task)).task
    model = task.model().eval()
    old = model.get_submodule(options.layer)
    samples, drive = _samples(task, model, options)
    test = split(samples)[1]
    print("| layer | parameters | start | fitted | on what it saw | last position | " + _names(test) + " | seconds |")
    for name in options.only:
        print(f"| {name} | {_row(CANDIDATES[name], old, samples, drive, options)} |", flush=True)


def _samples(task: Any, model: nn.Module, options: argparse.Namespace) -> tuple[list[Sample], Tensor]:
    """Calls of the layer on training batches, and how it weighs its inputs."""
    batches, seen = task.batches(torch.Generator().manual_seed(0)), []
    with evaluating(model):
        while len(seen) < options.batches:
            seen += [call for _, call in calls(model, [options.layer], next(batches)[0])]
    samples, drives = samples_of(model.get_submodule(options.layer), seen)
    return samples[options.index], drives[options.index]


def _row(
    fields: dict[str, Any] | None, old: Any, samples: list[Sample], drive: Tensor, options: argparse.Namespace
) -> str:
    """The cells of a candidate."""
    used, test = split(samples)
    started, first = time.perf_counter(), "-"
    torch.manual_seed(0)
    if fields is None:
        module: Any = type(old)(samples[0].x.shape[-1], old.hidden_size, batch_first=True)
        student = Student(module, tuple(name for name, _ in module.named_parameters()), lambda s: module(s.x)[0])
    else:
        convert = Convert(**fields)
        build = builder(convert.to, convert.model_dump(), old)
        group = build(samples[0].x.shape[-1], samples[0].target.shape[-1], samples[0].x)
        if not options.random:
            start(group, used, drive, torch.Generator().manual_seed(0))
        module = nn.ModuleList(group)
        names = tuple(name for name, _ in module.named_parameters())
        student = Student(module, names, lambda s: in_turn(group, s.x, s.counts))
        first = f"{_error(student, test):.3f}"
    fit(
        student, student.names, used, steps=options.steps, lr=options.lr, masks={},
        generator=torch.Generator().manual_seed(0), report=lambda *_: None,
    )  # fmt: skip
    parameters = sum(parameter.numel() for parameter in module.parameters())
    seconds = time.perf_counter() - started
    parts = [_error(student, test, span) for span in _bins(test)]
    found = [_error(student, test), _error(student, used[: len(test)]), _error(student, test, None), *parts]
    return " | ".join([f"{parameters:,}", first, *(f"{value:.3f}" for value in found), f"{seconds:.0f}"])


def _bins(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    longest = max(sample.x.shape[1] for sample in samples)
    return [span for span in BINS if span[0] < longest]


def _names(samples: Sequence[Sample]) -> str:
    return " | ".join(f"{low + 1} to {high}" if high > low + 1 else str(high) for low, high in _bins(samples))


def _error(student: Student, samples: Sequence[Sample], span: tuple[int, int] | None = (0, 1 << 20)) -> float:
    """Over positions in a span, or the last one of each sequence, relative to the variance at these positions."""
    targets, distances = [], []
    for sample in samples:
        with torch.no_grad():
            squares = (student.forward(sample) - sample.target).square().sum(-1)
        places = torch.arange(squares.shape[1])
        counted = sample.counts[..., 0] > 0
        if span is None:
            chosen = places == counted.sum(1, keepdim=True) - 1
        else:
            chosen = counted & (places >= span[0]) & (places < span[1])
        targets.append(sample.target[chosen])
        distances.append(squares[chosen])
    every = torch.cat(targets)
    return float(torch.cat(distances).sum() / (every - every.mean(0)).square().sum())


if __name__ == "__main__":
    main()
