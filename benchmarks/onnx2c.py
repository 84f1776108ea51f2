"""Generated C beside that of onnx2c, for the float LSTMs that both take, on an emulated Cortex-M4.

    python benchmarks/onnx2c.py --onnx2c PATH [--battery soc_model_legacy.onnx]

PATH is onnx2c's program, which you build from github.com/kraiskil/onnx2c (cmake; its submodules are needed for their
headers and `onnx.proto`). Both get the same model as a whole sequence of ten positions: onnx2c an ONNX file of fixed
sizes, which our exporter writes. `benchmarks/microcontrollers.py --onnx2c PATH` puts the table into its page.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.board_models import lstms  # noqa: E402
from compressor.formats import EXPORTERS, Job  # noqa: E402
from compressor.runtimes.microcontroller.boards import BOARDS, tools  # noqa: E402
from compressor.runtimes.microcontroller.program import Array, Call, Code  # noqa: E402
from compressor.runtimes.microcontroller.proof import OPTIMISATION, read  # noqa: E402
from compressor.runtimes.microcontroller.running import run  # noqa: E402
from exporters.passes import fixed_shapes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

LENGTH = 10
COMMIT = "ea045cc"
OURS: dict[str, dict[str, Any]] = {"ours, `math: library`": {}, "ours, `math: fast`": {"math": "fast"}}
WRAPPER = """#include "theirs.inc"
#include "theirs.h"
void theirs_init(theirs_state *s) {{ (void)s; }}
void theirs_run(theirs_state *s, const float *x, float *y)
{{
    (void)s;
    entry((const float (*){inputs})x, (float (*){outputs})y);
}}
"""
HEADER = """typedef struct { int nothing; } theirs_state;
void theirs_init(theirs_state *s);
void theirs_run(theirs_state *s, const float *x, float *y);
"""


def table(program: Path, models: Mapping[str, tuple[nn.Module, Any]]) -> str:
    """Rows of all models: name -> (model, task)."""
    lines = ["| model | C of | flash | RAM | of it stack | instructions a step |", "|---|---|---|---|---|---|"]
    for name, (model, task) in models.items():
        with tempfile.TemporaryDirectory() as place:
            for row in compared(program, model, task, Path(place)):
                lines.append(f"| {name} | {row} |")
                print(lines[-1], flush=True)
    return "\n".join(lines)


def compared(program: Path, model: nn.Module, task: Any, folder: Path) -> list[str]:
    """One row of cells for onnx2c, and one for each form of ours."""
    torch.manual_seed(0)
    x = task.example(1, LENGTH)[0].numpy()
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    rows = [_cells(f"onnx2c {COMMIT}", _theirs(program, model, task, folder, x, wanted), x, wanted)]
    for name, options in OURS.items():
        chosen = EXPORTERS["c"].options.model_validate({"form": "sequence", "length": LENGTH, **options})
        path = folder / chosen.file_name()
        EXPORTERS["c"].export(Job(model, task, path, chosen))
        rows.append(_cells(name, read(path)[0], x, wanted))
    return rows


def _theirs(program: Path, model: nn.Module, task: Any, folder: Path, x: Any, wanted: Any) -> Code:
    source = folder / "any.onnx"
    EXPORTERS["onnx"].export(Job(model, task, source, EXPORTERS["onnx"].options.model_validate({})))
    fixed = fixed_shapes.write(source, folder / "fixed.onnx", task, LENGTH)
    _without_allowzero(fixed)
    done = subprocess.run([str(program), "-l1", str(fixed)], check=True, capture_output=True, text=True)
    (folder / "theirs.inc").write_text(f"#pragma GCC system_header\n{done.stdout}")  # no warnings of it
    (folder / "theirs.h").write_text(HEADER)
    sizes = ["".join(f"[{size}]" for size in array.shape[1:]) for array in (x, wanted)]
    (folder / "theirs.c").write_text(WRAPPER.format(inputs=sizes[0], outputs=sizes[1]))
    arrays = [(Array(name, "float", tuple(part.shape)),) for name, part in (("input0", x), ("output0", wanted))]
    return Code(folder / "theirs.c", "theirs.h", "theirs", "theirs_run", *arrays)


def _without_allowzero(path: Path) -> None:
    """Leave an attribute out that onnx2c refuses, and that means nothing here: no size is 0."""
    proto = onnx.load(path)
    for node in proto.graph.node:
        kept = [item for item in node.attribute if item.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(proto, path)


def _cells(name: str, code: Code, x: Any, wanted: Any) -> str:
    outcome = run(code, [Call([x], True), Call([x], True)], BOARDS["cortex-m4"], tools(), flags=[OPTIMISATION])
    for outputs in outcome.outputs:
        np.testing.assert_allclose(outputs[0].ravel(), wanted.ravel(), atol=1e-5)
    image, ram = outcome.image, outcome.image.ram_bytes + outcome.stack_bytes
    steps = max(outcome.instructions) // LENGTH
    return f"{name} | {image.flash_bytes:,} B | {ram:,} B | {outcome.stack_bytes:,} B | {steps:,}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx2c", type=Path, required=True)
    parser.add_argument("--battery", type=Path, help="the public model's soc_model_legacy.onnx")
    options = parser.parse_args(arguments)
    table(options.onnx2c, lstms(options.battery))


if __name__ == "__main__":
    main()
