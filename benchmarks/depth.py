"""What fewer and shared layers cost: a sentence encoder and a speaker encoder trained by others, on the exported files.

    python samples/minilm/fetch.py; python samples/speaker_encoder/fetch.py
    python benchmarks/depth.py tie FOLDER               # docs/results/depth.md; what is in FOLDER is not made again
    python benchmarks/depth.py tie FOLDER --seeds 3     # the order of the batches is drawn anew for each seed
    python benchmarks/depth.py tie FOLDER --speaker
    python benchmarks/depth.py chains FOLDER            # layers left out, repeated, reordered
    python benchmarks/depth.py chains FOLDER --speaker

Retraining: none, 100 batches of 32 sentences or an epoch of 268 with outputs of layers matched too, as a row says; ten
epochs of the speaker encoder. The original is the teacher; no label is used.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compressor.files import write_whole
from compressor.formats import Job
from compressor.measure import accuracy, size
from compressor.methods.base import Context, Control, Method, State
from compressor.methods.depth_search import DepthSearch
from compressor.methods.retrain import Retrain
from compressor.methods.tie_layers import TieLayers
from compressor.progress import Silent
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.forwards import TorchForward
from compressor.task.loading import load
from exporters.onnx import Options, export

if TYPE_CHECKING:
    from torch import nn

    from compressor.task.guard import GuardedTask

CPU = torch.device("cpu")
TASKS = {"minilm": "samples/minilm/task.py", "speaker": "samples/speaker_encoder/task.py"}
TRAINING: dict[str, Method] = {
    "minilm": Retrain(epochs=1, max_batches=100, lr=1e-4, schedule="cosine", warmup=0.1),
    "speaker": Retrain(
        epochs=10, lr=1e-3, schedule="cosine", warmup=0.05, distill=True, distill_weight=1.0, distill_loss="cosine"
    ),
}
EPOCH = Retrain(
    epochs=1,
    lr=2e-4,
    schedule="cosine",
    warmup=0.1,
    distill=True,
    distill_loss="cosine",
    distill_hidden=("layers.1", "layers.3", "layers.5"),
)
"""For rows of the sentence encoder that end so."""
OF_AN_EPOCH = ", an epoch"
UNTRAINED = ", untrained"
"""Rows that end so are exported as the search left them."""
Rows = dict[str, tuple[Method | Control, ...]]
TIES: dict[str, Rows] = {
    "minilm": {
        "original": (),
        "3 groups": (TieLayers(groups=3),),
        "3 groups, mean": (TieLayers(groups=3, start="mean"),),
        "3 groups, all": (TieLayers(groups=3, share="all"),),
        "2 groups": (TieLayers(groups=2),),
        "1 group": (TieLayers(groups=1),),
        f"3 groups{OF_AN_EPOCH}": (TieLayers(groups=3),),
        f"2 groups{OF_AN_EPOCH}": (TieLayers(groups=2),),
    },
    "speaker": {"original": (), "layers 1, 2": (TieLayers(),), "layers 1, 2, all": (TieLayers(share="all"),)},
}


def searched(layers: int, **options: Any) -> Method:
    return DepthSearch(layers=layers, trials=40, calibration_batches=1, **options)


def spaced(layers: int) -> Control:
    """No search: layers at equal distances."""
    return searched(layers, compare=True).controls()["evenly spaced"]


CHAINS: dict[str, Rows] = {
    "minilm": {
        "original": (),
        **{f"{layers} layers": (searched(layers),) for layers in (5, 4, 3)},
        **{f"{layers} layers, evenly spaced": (spaced(layers),) for layers in (5, 4, 3)},
        **{
            f"{layers} layers, {pooling} pooling{UNTRAINED}": (
                DepthSearch(
                    layers=layers,
                    trials=15,
                    calibration_batches=1,
                    moves=("skip",),
                    pooling=pooling,
                    pooling_batches=16,
                ),
            )
            for layers in (5, 4, 3)
            for pooling in ("linear", "multilayer")
        },
        "4 layers, tree": (searched(4, search="tree"),),
        "4 layers, skipping only": (searched(4, moves=("skip",)),),
        "1 layer": (searched(1),),
    },
    "speaker": {
        "original": (),
        "2 layers": (searched(2),),
        "2 layers, evenly spaced": (spaced(2),),
        "1 layer": (searched(1),),
    },
}
TABLES = {"tie": TIES, "chains": CHAINS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--speaker", action="store_true", help="the speaker encoder instead of the sentence encoder")
    parser.add_argument("--rows", nargs="*", help="only rows whose labels begin so")
    options = parser.parse_args()
    torch.set_num_threads(1)
    which = "speaker" if options.speaker else "minilm"
    task, rows = load(TASKS[which]), TABLES[options.what][which]
    print("| | parameters | file | right after | retrained, exported file |")
    print("|---|---|---|---|---|")
    for label, steps in rows.items():
        if not options.rows or any(label.startswith(wanted) for wanted in options.rows):
            facts = [made(task, which, label, steps, seed, options.folder) for seed in range(options.seeds)]
            print(line(label, facts), flush=True)


def made(
    task: GuardedTask, which: str, label: str, steps: tuple[Method | Control, ...], seed: int, folder: Path
) -> dict[str, Any]:
    """What a row is with one seed; carried out if its record is not there."""
    path = folder / f"{which}-{label.replace(', ', '-').replace(' ', '-')}-{seed}.onnx"
    record = path.with_suffix(".json")
    if not record.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        state = State(task.model())
        context = Context(task, task.model().eval(), CPU, torch.Generator().manual_seed(seed), Silent())
        notes: list[str] = []
        for step in steps:
            result = step.apply(state, context) if isinstance(step, Method) else step(state, context)
            state = result.state
            notes += [f"{change.name}: {change.note}" for change in result.changes]
            notes += [f"{key} {value:.4g}" for key, value in result.facts.items()]
        before = score(task, state.model)
        if steps and not label.endswith(UNTRAINED):
            training = EPOCH if label.endswith(OF_AN_EPOCH) else TRAINING[which]
            state = training.apply(state, context).state
        export(Job(copy.deepcopy(state.model), task, path, Options()))
        content = {
            "parameters": size.count(state.model)[0],
            "bytes": path.stat().st_size,
            "before": before,
            "after": fact(accuracy.score(task, OnnxFile(path))),
            "notes": notes,
        }
        write_whole(record, json.dumps(content).encode())
    content = json.loads(record.read_text())
    print(f"<!-- {label}, seed {seed}: {content} -->", flush=True)
    return content


def score(task: GuardedTask, model: nn.Module) -> dict[str, float]:
    return fact(accuracy.score(task, TorchForward(model, CPU)))


def fact(found: Any) -> dict[str, float]:
    return {"metric": found.value, **found.parts}


def line(label: str, facts: list[dict[str, Any]]) -> str:
    """A row of the table: means over the seeds, and the smallest and largest metric if there are several."""
    before, after = ([each[key] for each in facts] for key in ("before", "after"))
    megabytes = facts[0]["bytes"] / 2**20
    return f"| {label} | {facts[0]['parameters'] / 1e6:.2f} M | {megabytes:.1f} MiB | {cell(before)} | {cell(after)} |"


def cell(scores: list[dict[str, float]]) -> str:
    values = [each["metric"] for each in scores]
    text = f"{statistics.mean(values):.2%}"
    if len(values) > 1:
        text += f" ({min(values):.2%} to {max(values):.2%})"
    cosine = [each["mean cosine with the original"] for each in scores if "mean cosine with the original" in each]
    return f"{text}, cosine {statistics.mean(cosine):.3f}" if cosine else text


if __name__ == "__main__":
    main()
