"""The grid of PyTorch's own export tests of recurrent layers: writes docs/results/recurrent-exports.md.

    python benchmarks/recurrent_exports.py [--only NAME]

One or three layers, one or both directions, an initial state that is an input or none, no lengths or packed ones (time
or batch first), with or without dropout between layers, for `nn.RNN` (ReLU and tanh), `nn.LSTM` and `nn.GRU`: 192
models of the sizes of these tests, which give all that the layer gives. Each is exported as it is, compared with
PyTorch by the exporter, and once more at sizes that it did not see, one step among them. It takes about ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.errors import CompressorError  # noqa: E402
from compressor.formats import Job  # noqa: E402
from compressor.testing import RandomTask, check_file, random_lengths  # noqa: E402
from exporters.onnx import Options, export  # noqa: E402

INPUT, HIDDEN, LENGTH = 5, 3, 11
CELLS: dict[str, Any] = {
    "RNN, ReLU": lambda **options: nn.RNN(INPUT, HIDDEN, nonlinearity="relu", **options),
    "RNN, tanh": lambda **options: nn.RNN(INPUT, HIDDEN, nonlinearity="tanh", **options),
    "LSTM": lambda **options: nn.LSTM(INPUT, HIDDEN, **options),
    "GRU": lambda **options: nn.GRU(INPUT, HIDDEN, **options),
}
PACKED = {"no lengths": None, "packed, time first": False, "packed, batch first": True}
HEADER = """# PyTorch's export tests of recurrent layers

Made by `python benchmarks/recurrent_exports.py`: the grid of PyTorch's own tests, written anew. One or three layers,
one or both directions, an initial state that is an input or none, no lengths or packed sequences (time or batch first),
dropout between layers or none, for each kind of layer. *right*: the file agrees with PyTorch at the exporter's own
sizes and at others, one step among them.

| layer | models | right |
|---|---|---|
"""


class Recurrent(nn.Module):
    """A layer, packed by lengths (B,) if `batch_first` is one of both, and all that it gives."""

    def __init__(self, layer: nn.Module, batch_first: bool | None) -> None:
        super().__init__()
        self.layer, self.batch_first = layer, batch_first

    def forward(self, x: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """Outputs and last states; with lengths also those of the outputs."""
        lengths = more[0] if self.batch_first is not None else None
        given = more if lengths is None else more[1:]
        states = () if not given else (tuple(given) if len(given) > 1 else given[0],)
        if lengths is None:
            output, last = self.layer(x, *states)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
            output, last = self.layer(packed, *states)
            output, _ = pad_packed_sequence(output, batch_first=self.batch_first, total_length=x.size(self._time()))
        return (output, *last) if isinstance(last, tuple) else (output, last)

    def _time(self) -> int:
        return 1 if self.batch_first else 0


def cases() -> dict[str, tuple[nn.Module, RandomTask]]:
    """Name -> model and task."""
    grid = itertools.product((1, 3), (False, True), (True, False), PACKED.items(), (0.2, 0.0), CELLS.items())
    return {
        f"{cell}, {layers} layers, {'both directions' if both else 'forward'}, "
        f"{'initial state' if initial else 'no state'}, {packing}, dropout {dropout}": _case(
            make, layers, both, initial, batch_first, dropout
        )
        for layers, both, initial, (packing, batch_first), dropout, (cell, make) in grid
    }


def _case(
    make: Any, layers: int, both: bool, initial: bool, batch_first: bool | None, dropout: float
) -> tuple[nn.Module, RandomTask]:
    layer = make(
        num_layers=layers, bidirectional=both, dropout=dropout if layers > 1 else 0.0, batch_first=bool(batch_first)
    )
    model = Recurrent(layer, batch_first).eval()
    states = (2 if isinstance(layer, nn.LSTM) else 1) if initial else 0
    rows = layers * (1 + both)
    sequence = {0: "batch", 1: "time"} if batch_first else {0: "time", 1: "batch"}

    def example(batch: int, length: int) -> tuple[Tensor, ...]:
        x = torch.randn(batch, length, INPUT) if batch_first else torch.randn(length, batch, INPUT)
        lengths = () if batch_first is None else (random_lengths(batch, length),)
        return (x, *lengths, *(torch.randn(rows, batch, HIDDEN) for _ in range(states)))

    inputs: dict[str, dict[int, str]] = {"x": sequence}
    if batch_first is not None:
        inputs["lengths"] = {0: "batch"}
    inputs |= {name: {1: "batch"} for name in ("h0", "c0")[:states]}
    names = ("h_n", "c_n") if isinstance(layer, nn.LSTM) else ("h_n",)
    outputs = {"output": sequence} | {name: {1: "batch"} for name in names}
    return model, RandomTask(inputs, outputs, example, model, length=LENGTH)


def failure(model: nn.Module, task: RandomTask) -> str | None:
    """Why there is no right file; None if there is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            export(Job(model, task, path, Options(format="onnx")))
            check_file(path, model, task)
        except CompressorError as error:
            return " ".join(str(error).split())
    return None


def main() -> int:
    """Run the grid and write the page; exit code 1 if one is not right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names that contain this, printed and not written")
    only = parser.parse_args().only
    torch.manual_seed(0)
    chosen = {name: case for name, case in cases().items() if only in name}
    failures = {}
    for name, (model, task) in chosen.items():
        reason = failure(model, task)
        print(f"{'right' if reason is None else 'FAILED'}: {name}{f': {reason}' if reason else ''}", flush=True)
        if reason is not None:
            failures[name] = reason
    print(f"{len(chosen) - len(failures)} of {len(chosen)} are right")
    if not only:
        rows = [
            f"| {cell} | {len(own)} | {sum(name not in failures for name in own)} |"
            for cell in CELLS
            if (own := [name for name in chosen if name.startswith(f"{cell}, ")])
        ]
        reasons = [f"\n- {name}: {reason}" for name, reason in failures.items()]
        page = ROOT / "docs" / "results" / "recurrent-exports.md"
        page.write_text(HEADER + "\n".join(rows) + "\n" + "".join(reasons), encoding="utf-8")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
