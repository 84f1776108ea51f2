"""The quickstart's model in other tools: what they remove, how small and fast the file gets, what it costs.

    python benchmarks/alternatives.py FOLDER     # writes docs/results/alternatives.md; FOLDER keeps the runs

The recipes `quickstart` and `weights-90` (90 % zeros, as `torch.nn.utils.prune` gives, retrained) run through the
command line, `quantize_dynamic` of ONNX Runtime rounds the exported original, and Torch-Pruning is asked for half of
the units of the same network. All files are timed interleaved by `compressor bench`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import quantize_dynamic

from compressor import load_task

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "alternatives.md"
TASK = "samples/japanese_vowels/task.py"
CELLS = ("Gru", "Lstm")
HEAD = f"""# The quickstart's models in other tools

Written by `python benchmarks/alternatives.py runs/alternatives`: networks with one recurrent layer of 128 units
([the sample](../../samples/japanese_vowels/README.md)), seed 0, accuracy on 370 test sequences with the exported file,
batch 1, 16 steps, 1 thread, all files interleaved, 95 % confidence intervals. ONNX Runtime {version("onnxruntime")},
PyTorch {torch.__version__.partition("+")[0]}, Torch-Pruning {version("torch-pruning")}.

| network | tool | file | times smaller | accuracy | times as fast |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Measure everything and write the page."""
    parser = argparse.ArgumentParser(description="Other tools on the model of the quickstart.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = [row for cell in CELLS for row in rows_of(cell, folder / cell)]
    text = HEAD + "\n".join(rows) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def rows_of(cell: str, folder: Path) -> list[str]:
    """The table's rows for one network."""
    small = run("quickstart", cell, folder)
    zeros = run("weights-90", cell, folder)
    original, rounded = small / "original.onnx", folder / "quantize_dynamic.onnx"
    quantize_dynamic(original, rounded)
    files = {
        "original": original,
        "ONNX Runtime `quantize_dynamic`, 8 bits": rounded,
        "90 % zeros": zeros / "model.onnx",
        "**this tool, `quickstart`**": small / "model.onnx",
    }
    timed = bench(cell, list(files.values()))
    rows = [_row(cell, name, path, original, time) for (name, path), time in zip(files.items(), timed, strict=True)]
    rows.insert(-1, f"| {cell.upper()} | Torch-Pruning, half of the units | {torch_pruning(cell)} | | | |")
    return rows


def run(recipe: str, cell: str, folder: Path) -> Path:
    """The folder of a run; one that is there already is kept."""
    out = folder / recipe
    if not (out / "report.json").is_file():
        command = [*_COMPRESSOR, "run", recipe, "--task", f"{TASK}:{cell}", "--out", str(out)]
        subprocess.run(command, cwd=ROOT, check=False)  # 1: a limit is missed
    return out


def bench(cell: str, files: list[Path]) -> list[dict[str, Any]]:
    """Latency of each file, and how many times as fast as the first it is."""
    command = [*_COMPRESSOR, "bench", *map(str, files), "--task", f"{TASK}:{cell}", "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def torch_pruning(cell: str) -> str:
    """What Torch-Pruning makes of the network: parameters before and after, or its error."""
    import torch_pruning

    task = load_task(f"{ROOT / TASK}:{cell}")
    model, inputs = task.model(), task.example(2, 16)
    before = sum(parameter.numel() for parameter in model.parameters())
    importance = torch_pruning.importance.MagnitudeImportance(p=2)
    try:
        pruner = torch_pruning.pruner.MetaPruner(
            model, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=[model.output],
            in_channel_groups={}, out_channel_groups={}, num_heads={},
        )  # fmt: skip
        pruner.step()
        model(*inputs)
    except Exception as error:  # whatever it raises is the result
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:80]}"
    after = sum(parameter.numel() for parameter in model.parameters())
    return "nothing removed, no error" if after == before else f"{before:,} → {after:,} parameters"


def accuracy(cell: str, file: Path) -> float:
    """The task's metric with an ONNX file."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        feeds = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return float(load_task(f"{ROOT / TASK}:{cell}").evaluate(forward).mean())


def _row(cell: str, name: str, file: Path, original: Path, timed: dict[str, Any]) -> str:
    size, ratio = file.stat().st_size, original.stat().st_size / file.stat().st_size
    speed = timed.get("speedup")
    fast = (
        "1"
        if speed is None
        else f"{speed['ratio']:.2f} [{speed['interval']['low']:.2f}, {speed['interval']['high']:.2f}]"
    )
    return f"| {cell.upper()} | {name} | {size / 1024:.1f} KiB | {ratio:.2f} | {accuracy(cell, file):.2%} | {fast} |"


_COMPRESSOR = (sys.executable, "-m", "compressor.cli")

if __name__ == "__main__":
    main()
