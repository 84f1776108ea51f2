"""What the tool does with many kinds of models: writes docs/results/model-kinds.md.

    pip install torchaudio torchvision transformers
    python benchmarks/model_kinds.py [--group GROUP] [--only NAME] [--resume FILE.json] [--known]

For each kind, small and with random weights: is its call described, how many parameters are left if every layer loses
half of its units (`targets: ["*"]`, without data), is the file right (the exporter's comparison and one at further
sizes), also with int8 weights, and is there a step file. A kind whose packages are not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.kinds.kind import Kind, KindTask  # noqa: E402
from compressor.errors import CompressorError  # noqa: E402
from compressor.formats import Job  # noqa: E402
from compressor.methods.base import Context, State  # noqa: E402
from compressor.methods.magnitude import Magnitude  # noqa: E402
from compressor.progress import Silent  # noqa: E402
from compressor.task.guard import GuardedTask  # noqa: E402
from compressor.testing import check_file  # noqa: E402
from exporters.onnx import Options, export  # noqa: E402
from exporters.quantization import quantize  # noqa: E402

GROUPS = {
    "Recurrent topologies, convolutions, speech (written out)": "rebuilt",
    "Classes of `transformers`: text": "hugging_face",
    "Classes of `transformers`: speech, time series, pictures": "signals",
    "Classes of `torchaudio`": "audio",
    "Classes of `torchvision`, 64 x 64": "vision",
}
COLUMNS = ("described", "units", "file right", "rounded", "streamed")
HEADER = """# Kinds of models

Made by `python benchmarks/model_kinds.py`: small models with random weights, every layer asked for half of its units
(`targets: ["*"]`). *units*: parameters that are left; the smaller model was compared with the original whose units are
silent. *file right*: the ONNX file of the smaller model agrees with it at sizes that the export did not see, *rounded*
with int8 weights too. *streamed*: there is a step file as well, looked at for models that see no later step. `no` is a
refusal with a reason, listed below; `-` was not tried.
Rows are kept between runs (`--resume`). On 29 November 2026 these were made anew: of text those from BERT to Phi, the
styles, `rrelu`, `median`, the masked row and autocast. Mamba, RWKV and the classes of `torchaudio` are a day older, the
others older still: later text models (Phi 3 to Marian) have fewer parameters now, since whole heads of attention go.
"""


def main() -> None:
    """Run all kinds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", choices=GROUPS.values(), help="one group of kinds, printed and not written")
    parser.add_argument("--only", help="names that contain this, printed and not written")
    parser.add_argument("--resume", type=Path, help="rows that were computed already, kept up to date")
    parser.add_argument("--known", action="store_true", help="write the page from the rows of --resume alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    quantize.SMALLEST = 1  # the models are smaller than what is worth rounding
    known = json.loads(options.resume.read_text()) if options.resume and options.resume.exists() else {}
    lines, reasons = [HEADER], []
    for title, module in GROUPS.items():
        if options.group not in (None, module):
            continue
        try:
            kinds = importlib.import_module(f"benchmarks.kinds.{module}").KINDS
        except ImportError as error:
            print(f"{title}: left out: {error}", file=sys.stderr)
            continue
        chosen = [kind for kind in kinds if not options.only or options.only in kind.name]
        chosen = [kind for kind in chosen if not options.known or f"{module}: {kind.name}" in known]
        if not chosen:
            continue
        lines += ["", f"## {title}", "", f"| kind | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
        for kind in chosen:
            key = f"{module}: {kind.name}"
            row, why = known.get(key) or outcome(kind)
            known[key] = [row, why]
            lines.append(f"| {kind.name} | {' | '.join(row[column] for column in COLUMNS)} |")
            reasons += [f"- {kind.name}, {column}: {reason}" for column, reason in why.items()]
            print(lines[-1], why, flush=True)
            if options.resume:
                options.resume.write_text(json.dumps(known, indent=1))
    page = "\n".join([*lines, "", "## Reasons", "", *reasons]) + "\n"
    if not (options.only or options.group):
        (ROOT / "docs" / "results" / "model-kinds.md").write_text(page, encoding="utf-8")


def outcome(kind: Kind) -> tuple[dict[str, str], dict[str, str]]:
    """The cells of one row, and why some say no."""
    row, why = dict.fromkeys(COLUMNS, "-"), {}

    def tried(column: str, action: Any) -> Any:
        try:
            value = action()
        except CompressorError as error:
            row[column], why[column] = "no", _short(error.message)
        except Exception as error:
            row[column], why[column] = "fault", _short(f"{type(error).__name__}: {error}")
        else:
            row[column] = "yes"
            return value
        return None

    task = GuardedTask(KindTask(kind), __file__)
    model = tried("described", task.model)
    if model is None:
        return row, why
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    method = Magnitude(prune="units", ratio=0.5, targets=("*",), compensate=False)
    smaller = tried("units", lambda: method.apply(State(model), context).state.model)
    if smaller is not None:
        before, after = (sum(part.numel() for part in each.parameters()) for each in (model, smaller))
        row["units"] = f"{after / before:.0%}"
        model = smaller
    tried("file right", lambda: _exported(model, task))
    tried("rounded", lambda: _exported(model, task, precision="int8"))
    if kind.causal:
        tried("streamed", lambda: _exported(model, task, stream=True))
    return row, why


def _exported(model: Any, task: GuardedTask, **options: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(Job(model, task, path, Options(format="onnx", **options)))
        if "precision" not in options:
            check_file(path, model, task)
    return True


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= 160 else line[:157] + "..."


if __name__ == "__main__":
    main()
