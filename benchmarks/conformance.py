"""Which topologies are pruned without a trace and exported, for each kind of cell: writes docs/results/conformance.md.

    python benchmarks/conformance.py [--only-converted]

Every cell of the first table is one run: units are removed from a random model in float64 and its outputs are compared
with those of the model in which the same units are silenced, at shapes that the trace did not see. Every cell of the
second one is a float32 model that lost a random half or third of its units, exported and compared with PyTorch. That
takes about ten minutes; the exit status is 1 where a file was exported and is wrong.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.errors import ExportError, MethodError, ParityError, SurgeryError  # noqa: E402
from compressor.methods.base import Context, State  # noqa: E402
from compressor.methods.convert import Convert  # noqa: E402
from compressor.nn.recurrent.layers import recurrent_modules  # noqa: E402
from compressor.progress import Silent  # noqa: E402
from compressor.surgery.units.choice import Amount  # noqa: E402
from compressor.surgery.units.removal import prune  # noqa: E402
from compressor.testing import RandomTask  # noqa: E402
from tests.exporters.pruned import TOPOLOGIES, UNSEEN_BATCHES, check_exported, pruned, without_time  # noqa: E402
from tests.surgery.topologies import CELL_KINDS, CELLS, INPUT, REFUSED, SUPPORTED, CellLoop  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ((2, 3), (5, 7), (1, 1), (3, 11))
HEADER = """# Supported topologies

Made by `python benchmarks/conformance.py`. Each cell: a random model of the topology loses units of every recurrent
layer; the smaller model must give what the original gives with the same units silenced (float64, at most 1e-9 apart) at
batch sizes and lengths that were not traced. The models are in `tests/surgery/topologies.py`.
"""
EXPORTED = """
## Export after units are removed

Each cell: a float32 model that lost a random half or third of its units is exported to ONNX; ONNX Runtime must give
what PyTorch gives (atol 1e-5, rtol 1e-4) at batch sizes and lengths that the export did not see, among them one step,
batch 1, and more steps than the task's longest. `no` is a refusal, with the exporter's message; no file is
written.
"""
CONVERTED = """
## Export after a conversion

Each cell: the GRU of a random float32 model is converted (`distill_steps: 0`, `order: 3`; `lookahead: 2` if it runs in
both directions), and the model is exported and compared as above. `refused` is one of `convert`, with its message.
"""
COLUMNS = "| topology | RNN tanh | RNN relu | GRU | LSTM |\n|---|---|---|---|---|"
WRONG = "WRONG"


def inputs(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features and lengths, the first as long as it gets."""
    lengths = torch.randint(1, length + 1, (batch,)).index_fill(0, torch.tensor([0]), length)
    return torch.randn(batch, length, INPUT, dtype=torch.float64), lengths


def outcome(model: torch.nn.Module, names: list[str]) -> str:
    """`pass`, or why not."""
    try:
        prune(model.double().eval(), {}, [inputs(*shape) for shape in SHAPES], names=names, amount=Amount(ratio=0.5))
    except SurgeryError as error:
        return f"refused: {error.message}"
    return "pass"


def exported(topology: type[torch.nn.Module], cell: str, seed: int, *, fixed_length: bool = False) -> str:
    """`pass`, why the exporter refuses, or how far off the file is."""
    model, task = pruned(topology, cell, seed)
    options = (without_time(task), UNSEEN_BATCHES) if fixed_length else (task,)
    return verdict(lambda path: check_exported(model, options[0], path, *options[1:]))


def verdict(check: Callable[[Path], object]) -> str:
    """`pass`, why a method or the exporter refuses, or how far off the file is that `check` writes."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Path(folder) / "model.onnx")
        except MethodError as error:
            return f"refused: {error.message}"
        except ParityError as error:
            return f"{WRONG}: {' '.join(str(error).split())}"
        except ExportError as error:
            return f"no: {error.message}"
    return "pass"


def pruning_rows() -> list[str]:
    """The first table."""
    torch.manual_seed(0)
    rows = []
    for topology in SUPPORTED:
        models = [topology(cell) for cell in CELLS.values()]
        rows.append(_row(_name(topology), [outcome(model, list(recurrent_modules(model))) for model in models]))
    rows.append(_row(_name(CellLoop), [outcome(CellLoop(cell), ["rnn"]) for cell in CELL_KINDS.values()]))
    rows += ["", "Refused, the model untouched:", "", "| topology | reason (GRU) |", "|---|---|"]
    for topology in REFUSED:
        rows.append(_row(topology.__name__, [outcome(topology(CELLS["gru"]), ["rnn"]).removeprefix("refused: ")]))
    return rows


def export_rows() -> list[str]:
    """The second table."""
    rows = []
    for index, topology in enumerate(TOPOLOGIES):
        results = [exported(topology, cell, index + place) for place, cell in enumerate(CELLS)]
        rows.append(_row(topology.__name__, results))
        print(rows[-1], flush=True)
    results = [exported(CellLoop, cell, place, fixed_length=True) for place, cell in enumerate(CELLS)]
    rows.append(_row("CellLoop, its length fixed in the file", results))
    return rows


def converted(topology: type[torch.nn.Module]) -> str:
    """`pass`, why `convert` or the exporter refuses, or how far off the file is."""
    torch.manual_seed(0)
    model = topology(CELLS["gru"]).eval()

    def example(batch: int, length: int) -> tuple[torch.Tensor, ...]:
        features, lengths = inputs(batch, length)
        return features.float(), lengths

    with torch.no_grad():
        timed = model(*example(2, 3)).dim() == 3
    axes = {0: "batch", 1: "time"}
    task = RandomTask({"features": axes, "lengths": {0: "batch"}}, {"scores": axes if timed else {0: "batch"}}, example)
    task.batches = lambda generator: iter([(example(4, 9), None)] * 2)  # type: ignore[method-assign, assignment]
    ahead = 2 if any(layer.bidirectional for layer in recurrent_modules(model).values()) else 0
    step = Convert(to="fsmn", order=3, distill_steps=0, lookahead=ahead)
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent(), quick=True)
    return verdict(lambda path: check_exported(step.apply(State(model), context).state.model, task, path))


def converted_rows() -> list[str]:
    """The third table."""
    rows = []
    for topology in SUPPORTED:
        rows.append(_row(topology.__name__, [converted(topology)]))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run every topology with every cell and write the tables."""
    path = ROOT / "docs" / "results" / "conformance.md"
    third = [CONVERTED, "| topology | GRU to FSMN |\n|---|---|"]
    if "--only-converted" in sys.argv[1:]:
        before = path.read_text(encoding="utf-8").partition(CONVERTED)[0].rstrip("\n")
        path.write_text("\n".join([before, *third, *converted_rows()]) + "\n", encoding="utf-8")
        return
    lines = [HEADER, COLUMNS, *pruning_rows(), EXPORTED, COLUMNS, *export_rows(), *third, *converted_rows()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(int(any(WRONG in line for line in lines)))


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _name(topology: type) -> str:
    text = (topology.__doc__ or "").splitlines()[0].rstrip(".") if topology.__doc__ else ""
    return f"{topology.__name__}: {text[0].lower()}{text[1:]}" if text else topology.__name__


if __name__ == "__main__":
    main()
