"""Where the time of one export goes: its stages in milliseconds of processor time, with all checks.

    python benchmarks/export_time.py [--model gru|loop] [--repeats 5] [--set stream=true ...] [--json FILE]

The first export of a process is shown beside the median of the later ones: it imports the tracer and ONNX's function
library. A stage does not contain the stages inside it, so each column adds up to its export. Processor time is that of
this process; waiting for the process that loads the file first is in the wall clock only.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compressor.formats import Job
from compressor.testing import RandomTask, normal
from exporters import onnx

if TYPE_CHECKING:
    from collections.abc import Callable

TIMED = {0: "batch", 1: "time"}
INPUT, HIDDEN, CLASSES = 5, 7, 3
REST, TOTAL = "the rest", "total"
STAGES = {
    "trace (torch.export)": "torch.export:export",
    "read two traces as loops": "exporters.loops.graph:Graph.__init__",
    "unify two traces": "exporters.loops.unify:unify",
    "ONNX registry": "torch.onnx._internal.exporter._registration:ONNXRegistry.from_torchlib",
    "decompose": "torch.onnx._internal.exporter._fx_passes:decompose_with_registry",
    "type promotion": "torch.onnx._internal.exporter._fx_passes:insert_type_promotion_nodes",
    "translate, without the above": "torch.onnx:export",
    "optimizer (onnxscript)": "onnxscript.optimizer:optimize_ir",
    "tidy, without the optimizer": "exporters.passes.tidy:tidy",
    "checker and shape inference": "exporters.passes.validity:check",
    "rounding": "exporters.quantization.quantize:quantize",
    "first load, in a process of its own": "compressor.runtimes.loading:ensure",
    "ONNX Runtime session": "compressor.runtimes.onnx_runtime:_open",
    "parity, without the session": "compressor.measure.parity:check",
    "facts about the file": "exporters.onnx_files.facts:artifact",
}


class Tagger(nn.Module):
    """A GRU and a Linear layer."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.gru, self.head = nn.GRU(INPUT, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, CLASSES)."""
        scores: Tensor = self.head(self.gru(features)[0])
        return scores


class Loop(nn.Module):
    """An LSTMCell in a Python loop over time."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.cell, self.head = nn.LSTMCell(INPUT, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, INPUT) -> (B, T, CLASSES)."""
        state = (torch.zeros(features.size(0), HIDDEN), torch.zeros(features.size(0), HIDDEN))
        scores = []
        for step in features.unbind(1):
            state = self.cell(step, state)
            scores.append(self.head(state[0]))
        return torch.stack(scores, 1)


MODELS: dict[str, type[nn.Module]] = {"gru": Tagger, "loop": Loop}


class Stopwatch:
    """Processor time by stage, without that of stages inside."""

    def __init__(self) -> None:
        """Nothing measured yet."""
        self.milliseconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner: list[float] = []

    def watch(self, stage: str, place: str) -> None:
        """Measure a function, given as `module:name`; a stage whose function a library no longer has is left out."""
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        inherited = vars(owner).get(name)
        if inherited is None:
            print(f"{place} is not there: `{stage}` is in the stage around it", file=sys.stderr)
        elif isinstance(inherited, classmethod):
            setattr(owner, name, classmethod(self._timed(stage, inherited.__func__)))
        else:
            setattr(owner, name, self._timed(stage, inherited))

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = (time.process_time() - start) * 1e3
                self.milliseconds[stage] += spent - self._inner.pop()
                self.calls[stage] += 1
                if self._inner:
                    self._inner[-1] += spent

        return timed

    def run(self, function: Callable[[], Any]) -> dict[str, float]:
        """Stage -> milliseconds of one call, which are more than zero, and `wall clock`."""
        self.milliseconds.clear()
        self.calls.clear()
        start = time.perf_counter()
        self._timed(REST, function)()
        wall = (time.perf_counter() - start) * 1e3
        measured = {stage: self.milliseconds[stage] for stage in (*STAGES, REST) if self.calls[stage]}
        return {**measured, TOTAL: sum(measured.values()), "wall clock": wall}


def main() -> None:
    """Export one model some times, and print the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="gru")
    parser.add_argument("--repeats", type=int, default=5, help="exports after the first one")
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="OPTION=VALUE",
        help="export options, such as opset=21 or 'stream={chunk: 2}'",
    )
    parser.add_argument("--json", type=Path, help="also write the stages here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, task = MODELS[arguments.model](), RandomTask({"features": TIMED}, {"scores": TIMED}, normal(INPUT))
    options = onnx.Options.model_validate(
        {key: yaml.safe_load(text) for key, text in (item.split("=", 1) for item in arguments.set)}
    )
    watch = Stopwatch()
    started = time.process_time()
    for stage, place in STAGES.items():
        watch.watch(stage, place)
    imports = (time.process_time() - started) * 1e3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        runs = [
            watch.run(lambda: onnx.export(Job(model, task, path, options)))
            for _ in range(max(1, arguments.repeats) + 1)
        ]
        size = path.stat().st_size
    first, *later = runs
    stages = list(dict.fromkeys(stage for run in runs for stage in run))
    table = {
        stage: (first.get(stage, 0.0), statistics.median(run.get(stage, 0.0) for run in later)) for stage in stages
    }
    print(f"{'stage, ms of processor time':<40}{'first':>9}{'later':>9}")
    print(f"{'imports of what is measured':<40}{imports:>9.0f}{0:>9.0f}")
    for stage, (once, again) in table.items():
        print(f"{stage:<40}{once:>9.0f}{again:>9.0f}")
    print(f"{size} bytes")
    if arguments.json:
        arguments.json.write_text(json.dumps({"imports": imports, **table}, indent=1))


if __name__ == "__main__":
    main()
