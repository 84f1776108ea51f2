"""Which topologies are pruned without a trace, for each kind of cell: writes docs/conformance.md.

    python benchmarks/conformance.py

Every cell of the table is one run: units are removed from a random model in float64 and its outputs are compared with
those of the model in which the same units are silenced, at shapes that the trace did not see.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.errors import SurgeryError  # noqa: E402
from compressor.nn.recurrent import recurrent_modules  # noqa: E402
from compressor.surgery.choice import Amount  # noqa: E402
from compressor.surgery.units import prune  # noqa: E402
from tests.surgery.topologies import CELL_KINDS, CELLS, INPUT, REFUSED, SUPPORTED, CellLoop  # noqa: E402

SHAPES = ((2, 3), (5, 7), (1, 1), (3, 11))
HEADER = """# What `prune: units` follows

Made by `python benchmarks/conformance.py`. Each cell: a random model of the topology loses units of every recurrent
layer; the smaller model must give what the original gives with the same units silenced (float64, at most 1e-9 apart) at
batch sizes and lengths that were not traced. The models are in `tests/surgery/topologies.py`.
"""


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


def main() -> None:
    """Run every topology with every cell and write the table."""
    torch.manual_seed(0)
    rows = []
    for topology in SUPPORTED:
        results = []
        for cell in CELLS.values():
            model = topology(cell)
            results.append(outcome(model, list(recurrent_modules(model))))
        rows.append((topology, results))
    rows.append((CellLoop, [outcome(CellLoop(cell), ["rnn"]) for cell in CELL_KINDS.values()]))
    lines = [HEADER, "| topology | RNN tanh | RNN relu | GRU | LSTM |", "|---|---|---|---|---|"]
    lines += [f"| {topology.__name__}{_note(topology)} | {' | '.join(results)} |" for topology, results in rows]
    lines += ["", "Refused, the model untouched:", "", "| topology | reason (GRU) |", "|---|---|"]
    for topology in REFUSED:
        lines.append(f"| {topology.__name__} | {outcome(topology(CELLS['gru']), ['rnn']).removeprefix('refused: ')} |")
    (ROOT / "docs" / "conformance.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _note(topology: type) -> str:
    text = (topology.__doc__ or "").splitlines()[0].rstrip(".") if topology.__doc__ else ""
    return f": {text[0].lower()}{text[1:]}" if text else ""


if __name__ == "__main__":
    main()
