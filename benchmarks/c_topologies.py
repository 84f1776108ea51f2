"""Which topologies are right as C, float and in 8 bits, here and on emulated boards.

Writes docs/results/c-topologies.md:

    python benchmarks/c_topologies.py [TOPOLOGY ...]

Every cell is a random float32 model that lost a random half or third of its units. `TOPOLOGY` computes these rows anew
and leaves the others. A whole run takes about an hour; the exit status is 1 where code was exported and is wrong.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.errors import ExportError, ParityError  # noqa: E402
from compressor.formats import EXPORTERS, Job  # noqa: E402
from compressor.runtimes.microcontroller.boards import BOARDS, tools  # noqa: E402
from compressor.runtimes.microcontroller.proof import read, verify  # noqa: E402
from tests.exporters.pruned import TOPOLOGIES, pruned  # noqa: E402

C_LENGTH = 5
PAGE = ROOT / "docs" / "results" / "c-topologies.md"
HEADER = """# Topologies as C

Made by `python benchmarks/c_topologies.py`. Each cell: a random float32 model of the topology
(`tests/surgery/topologies.py`) loses a random half or third of its units and is exported as C (`format: c`,
`precision: int8`): a step if the model streams, else whole sequences of 5 positions. The float code is compiled, run
under sanitizers and compared with PyTorch, then the code with weights in 8 bits; `step` and `sequence` say that both
are right. With `M4 M7` the code was also run on emulated Cortex-M4 and M7 and gives the same there. `no` is a refusal,
with the exporter's message.
"""
CELLS = {"rnn_tanh": "RNN tanh", "gru": "GRU", "lstm": "LSTM"}
COLUMNS = f"| topology | {' | '.join(CELLS.values())} |\n|---|---|---|---|"
WRONG = "WRONG"


def as_c(topology: type[torch.nn.Module], cell: str, seed: int) -> str:
    """In which form the model is right as C, or why there is none."""
    model, task = pruned(topology, cell, seed)
    reasons: list[str] = []
    for settings in ({"form": "step"}, {"form": "sequence", "length": C_LENGTH}):
        options = EXPORTERS["c"].options.model_validate({**settings, "precision": "int8", "quantized_error": 0.5})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / options.file_name()
            try:
                EXPORTERS["c"].export(Job(model, task, path, options))
                return f"{settings['form']}{_on_boards(path) if cell == 'gru' else ''}"
            except ParityError as error:
                return f"{WRONG}: {' '.join(str(error).split())}"
            except ExportError as error:
                reasons.append(error.message.splitlines()[0])
    return f"no: {reasons[-1]}"


def _on_boards(path: Path) -> str:
    """Those boards on which generated C gives what it gives here."""
    try:
        found = tools()
    except ExportError:
        return ""
    code, proof = read(path)
    agreeing = [name for name, board in BOARDS.items() if verify(code, proof, board, found).agrees]
    return "".join(f" {name.removeprefix('cortex-').upper()}" for name in agreeing)


def main() -> None:
    """Compute the rows and write the page."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    known = dict(re.findall(r"^\| (\w+) (\|.*)$", text, re.MULTILINE))
    wanted = set(sys.argv[1:]) or {topology.__name__ for topology in TOPOLOGIES}
    for index, topology in enumerate(TOPOLOGIES):
        if topology.__name__ in wanted:
            known[topology.__name__] = f"| {' | '.join(as_c(topology, cell, index) for cell in CELLS)} |"
            print(topology.__name__, known[topology.__name__], flush=True)
    rows = [f"| {one.__name__} {known[one.__name__]}" for one in TOPOLOGIES if one.__name__ in known]
    missing = [one.__name__ for one in TOPOLOGIES if one.__name__ not in known]
    ending = ["", f"Not computed yet: {', '.join(missing)}."] if missing else []
    PAGE.write_text("\n".join([HEADER, COLUMNS, *rows, *ending]) + "\n", encoding="utf-8")
    sys.exit(int(any(WRONG in row for row in rows)))


if __name__ == "__main__":
    main()
