"""Bytes against a task's metric for every way to round a trained model: rows of the table in docs/results/precision.md.

    python benchmarks/frontiers_of_rounding.py --task samples/g2p/task.py
        [--ways float nearest-8 nearest-4 second-8 second-4 mixed-6 mixed-5 mixed-4.5 onnxruntime torch-pruning]
        [--samples 64] [--set block=64 quantize_for=anywhere]

Nothing is trained. Every row is a file that was written, read back and scored by the task's `evaluate`:
`nearest-8` and `second-8` are `precision: int8` to the nearest and by second order, `-4` is `int4`, `mixed-B` gives
each matrix bits of its own, B on average, scales included (`mixed-B` of more than 100: a file of B bytes). No limit
is set, so nothing steps back to higher precision. `onnxruntime` is `onnxruntime.quantization.quantize_dynamic` with
its defaults on the exported float file, `torch-pruning` Torch-Pruning's own `MagnitudePruner` with a quarter of all
channels on the PyTorch model, exported in float, not retrained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import compressor
from compressor.errors import CompressorError
from compressor.formats import Job
from compressor.measure import accuracy, size
from compressor.runtimes.forward import Fixed
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.fixed_axes import dynamic
from exporters import onnx

if TYPE_CHECKING:
    from torch import nn

    from compressor.task.contract import Task

WAYS = (
    "float",
    "nearest-8",
    "nearest-4",
    "second-8",
    "second-4",
    "mixed-6",
    "mixed-5",
    "mixed-4.5",
    "onnxruntime",
    "torch-pruning",
)
_METHODS = {"nearest": "nearest", "second": "second_order", "mixed": "second_order"}
_LARGEST_BITS = 100
_PRUNED = 0.25


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--ways", nargs="+", default=WAYS)
    parser.add_argument("--samples", type=int, default=64, help="calibration sequences")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="options of `rounding`")
    options = parser.parse_args()
    more = dict(text.split("=", 1) for text in options.set)
    torch.set_num_threads(1)
    task = compressor.load_task(options.task)
    model = task.model().eval()
    print(f"| way | bytes | gzip -9 | {task.metric} | output error | processor seconds |\n{'|---' * 6}|")
    shared: dict[tuple[Any, ...], Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in options.ways:
            begun = time.process_time()
            path = Path(folder) / f"{way}.onnx"
            try:
                error = _write(way, path, task, model, options.samples, more, shared)
                score = accuracy.score(task, Fixed(OnnxFile(path), dynamic(task)))
                cells = [f"{path.stat().st_size:,}", f"{size.gzip_bytes(path):,}", f"{score.value:.4f}", error]
            except Exception as error:  # of other people's tools, which raise whatever they meet
                cells = ["", "", f"not made: {type(error).__name__}: {str(error).partition(chr(10))[0][:120]}", ""]
            print("|", " | ".join([way, *cells, f"{time.process_time() - begun:.0f}"]), "|", flush=True)


def _write(
    way: str,
    path: Path,
    task: Task,
    model: nn.Module,
    samples: int,
    more: dict[str, str],
    shared: dict[tuple[Any, ...], Any],
) -> str:
    """Write the file of a way; gives the relative error of its outputs if that was measured."""
    kind, _, number = way.partition("-")
    if way == "torch-pruning":
        onnx.export(Job(_pruned(task, model), task, path, onnx.Options()))
        return ""
    if way in ("float", "onnxruntime"):
        onnx.export(Job(model, task, path, onnx.Options(), shared=shared))
        if way == "onnxruntime":
            _by_onnx_runtime(path)
        return ""
    if kind not in _METHODS:
        raise CompressorError(f"unknown way `{way}`", hint=f"there are {', '.join(WAYS)}")
    rounding: dict[str, Any] = {"method": _METHODS[kind], "calibration_samples": samples, "max_error": 1.0}
    rounding |= {name: int(text) if text.isdigit() else text for name, text in more.items()}
    precision = f"int{number}"
    if kind == "mixed":
        precision, amount = "mixed", float(number)
        rounding |= {"bits": amount} if amount <= _LARGEST_BITS else {"file_bytes": int(amount)}
    chosen = onnx.Options.model_validate({"precision": precision, "rounding": rounding})
    artifact = onnx.export(Job(model, task, path, chosen, shared=shared))
    assert artifact.quantization is not None
    return f"{artifact.quantization.error:.3f}"


def _by_onnx_runtime(path: Path) -> None:
    """Round a float file in place as ONNX Runtime does unless told otherwise."""
    from onnxruntime.quantization import quantize_dynamic

    before = path.stat().st_size
    quantize_dynamic(path, path)
    if path.stat().st_size > 0.99 * before:
        raise CompressorError(f"nothing was rounded: {path.stat().st_size:,} of {before:,} bytes are left")


def _pruned(task: Task, model: nn.Module) -> nn.Module:
    """A copy without a quarter of its channels, by Torch-Pruning alone; what makes the outputs stays."""
    import copy

    import torch_pruning

    copied = copy.deepcopy(model)
    before = size.count(copied)[0]
    example = task.example(2, task.length)
    with torch.no_grad():
        outputs = copied(*example)
    flat = (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)
    last = [
        module
        for module in copied.modules()
        if isinstance(module, torch.nn.Linear) and any(part.shape[-1] == module.out_features for part in flat)
    ]
    pruner = torch_pruning.pruner.MagnitudePruner(
        copied,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=_PRUNED,
        ignored_layers=last[-1:],
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    if size.count(copied)[0] == before:
        raise CompressorError("nothing was pruned")
    return copied


if __name__ == "__main__":
    main()
