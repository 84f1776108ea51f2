"""What works with recurrent cells that a model's own code computes: writes docs/results/own-cells.md.

    python benchmarks/own_cells.py

Every cell of the table is one run on a random model of `tests/surgery/own_cells.py`: half of the units are removed and
the outputs compared with those of the silenced original (float64), the smaller model is exported (compared with PyTorch
at sizes that the export did not see), stored in 8 bits, and written as a step file. It takes about three minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.errors import CompressorError  # noqa: E402
from compressor.formats import Job  # noqa: E402
from compressor.surgery.units.choice import Amount  # noqa: E402
from compressor.surgery.units.own_cells import find_own_cells  # noqa: E402
from compressor.surgery.units.removal import prune  # noqa: E402
from compressor.testing import RandomTask, normal  # noqa: E402
from exporters.onnx import Options, export  # noqa: E402
from tests.surgery.own_cells import INPUT, models  # noqa: E402

if TYPE_CHECKING:
    from torch import nn

HIDDEN = 61
TIMED = {0: "batch", 1: "time"}
EXAMPLES = [(torch.randn(2, 3, INPUT),), (torch.randn(3, 7, INPUT),)]
FILES: dict[str, dict[str, Any]] = {
    "file": {},
    "8 bits": {"precision": "int8", "rounding": {"quantize_for": "anywhere"}},
    "step file": {"stream": True},
}
HEADER = """# Cells in Python

Made by `python benchmarks/own_cells.py`. Each row: a random model with a cell that its own code computes (5 inputs, 61
units). It loses half of its units, equal to the original with the same units silenced (float64, at most 1e-9 apart);
the smaller model is exported and compared with PyTorch in ONNX Runtime, stored in 8 bits, and written as a step file.
The models are in `tests/surgery/own_cells.py`.
"""


def smaller(model: nn.Module) -> tuple[nn.Module, str]:
    """The model in double precision without half of its units, or as it is, and what became of it."""
    examples = [tuple(part.double() for part in example) for example in EXAMPLES]
    model = model.double().eval()
    names = list(find_own_cells(model, examples[0]))
    try:
        return prune(model, {}, examples, names=names, amount=Amount(ratio=0.5), required=names).model, "pass"
    except CompressorError as error:
        return model, f"refused: {error.message}"


def written(model: nn.Module, options: dict[str, Any]) -> str:
    """`pass`, or why there is no file."""
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(INPUT), model)
    with tempfile.TemporaryDirectory() as folder:
        try:
            export(Job(model, task, Path(folder) / "model.onnx", Options(**options)))
        except CompressorError as error:
            return f"refused: {' '.join(error.message.split())}"
    return "pass"


def main() -> None:
    """Run every model and write the table."""
    torch.manual_seed(0)
    lines = [HEADER, f"| cell | units | {' | '.join(FILES)} |", "|---" * (2 + len(FILES)) + "|"]
    for name, model in models(HIDDEN).items():
        without, outcome = smaller(model)
        outcomes = [written(without.float(), options) for options in FILES.values()]
        lines.append(f"| {name} | {' | '.join([outcome, *outcomes])} |")
        print(lines[-1], flush=True)
    (ROOT / "docs" / "results" / "own-cells.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
