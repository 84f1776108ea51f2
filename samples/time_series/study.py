"""Attention or Aaren? Trains, converts and exports both on every task, and writes the results into README.md.

    python samples/time_series/study.py measure vowels gun --seeds 0 1 2   # into cache/; can be stopped and resumed
    python samples/time_series/study.py write                              # results.json and the table of README.md

Three forms, each measured on its exported file: `attention`, the causal Transformer; `scratch`, the same network with
Aarens instead of its attention and the same random weights elsewhere, trained identically; `converted`, the trained
Transformer after the method `aaren` and a `retrain` that distills from it.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from task import TASKS, Series  # noqa: E402
from train import train  # noqa: E402
from weather import seasonal_naive, window_mean, windows  # noqa: E402

from compressor.files import write_whole  # noqa: E402
from compressor.formats import Job  # noqa: E402
from compressor.measure import accuracy  # noqa: E402
from compressor.methods.aaren import Aaren  # noqa: E402
from compressor.methods.base import Context, State  # noqa: E402
from compressor.methods.retrain import Retrain  # noqa: E402
from compressor.nn.attention.aaren import AarenAttention  # noqa: E402
from compressor.nn.structure import replace_module  # noqa: E402
from compressor.progress import Silent  # noqa: E402
from compressor.runtimes.onnx_runtime import OnnxFile  # noqa: E402
from compressor.task.forwards import TorchForward  # noqa: E402
from compressor.task.guard import GuardedTask  # noqa: E402
from exporters.onnx import Options, export  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

HERE = Path(__file__).parent
CACHE, RESULTS, README = HERE / "cache", HERE / "results.json", HERE / "README.md"
FORMS = ("attention", "scratch", "converted")
BEGIN, END = "<!-- begin: written by study.py -->", "<!-- end: written by study.py -->"
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Number of seeds -> the 97.5 % point of Student's t with one degree of freedom less."""

Row = dict[str, Any]
"""task, seed, for each form its score on the file, in PyTorch between conversion and retraining; for forecasts also the
mean absolute errors."""


def swapped(network: nn.Module) -> nn.Module:
    """The network with an Aaren, whose query is random, instead of each attention; other weights as they are."""
    attentions = [name for name, part in network.named_modules() if isinstance(part, torch.nn.MultiheadAttention)]
    for name in attentions:
        aaren = AarenAttention.from_attention(network.get_submodule(name))  # type: ignore[arg-type]
        torch.nn.init.normal_(aaren.query)
        replace_module(network, name, aaren)
    return network


def steps(task: Series) -> tuple[Aaren, Retrain]:
    """Conversion and then half as many epochs as the training had."""
    forecast = not task.higher_is_better
    retrain = Retrain(
        epochs=task.epochs // 2,
        lr=1e-3,
        schedule="cosine",
        distill=True,
        distill_loss="mse" if forecast else "kl",
        distill_weight=0.5,
    )
    return Aaren(), retrain


def converted(task: GuardedTask, original: nn.Module, methods: Sequence[Aaren | Retrain], seed: int) -> list[nn.Module]:
    """The model after each step."""
    context = Context(
        task=task,
        original=original,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(seed),
        progress=Silent(),
    )
    state, models = State(copy.deepcopy(original)), []
    for method in methods:
        state = method.apply(state, context).state
        models.append(state.model)
    return models


def on_file(task: GuardedTask, model: nn.Module) -> tuple[float, dict[str, float]]:
    """The task's metric and its parts on the exported file, whose agreement with PyTorch is checked on the way."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(Job(model, task, path, Options()))
        score = accuracy.examine(task, OnnxFile(path)).score
    return score.value, dict(score.parts)


def measure(name: str, seed: int) -> Row:
    """All forms of one task with one seed."""
    series = TASKS[name]()
    task = GuardedTask(series, str(HERE / "task.py"))
    original = train(series, seed)
    models = {"attention": original, "scratch": train(series, seed, swapped)}
    unfinished, models["converted"] = converted(task, original, steps(series), seed)
    row: Row = {"task": name, "seed": seed}
    row["before retraining"] = round(accuracy.score(task, TorchForward(unfinished, torch.device("cpu"))).value, 4)
    for form, model in models.items():
        value, parts = on_file(task, model)
        row[form] = round(value, 4)
        if not series.higher_is_better:
            row[f"{form}, absolute"] = round(parts["mean absolute error"], 4)
    row["parameters"] = [sum(part.numel() for part in models[form].parameters()) for form in FORMS]
    return row


def baselines(name: str) -> dict[str, list[float]]:
    """Mean squared and mean absolute error of forecasts that need no training."""
    horizon = TASKS[name].horizon  # type: ignore[attr-defined]
    known, ahead = windows("test", horizon, 5)
    made: dict[str, Callable[[Tensor, int], Tensor]] = {
        "the last day again": seasonal_naive,
        "window mean": window_mean,
    }
    differences = {title: forecast(known, horizon) - ahead for title, forecast in made.items()}
    return {title: [float(d.square().mean()), float(d.abs().mean())] for title, d in differences.items()}


def interval(values: Sequence[float]) -> str:
    """Mean and its 95 % interval by Student's t."""
    half = T_975[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    mean = statistics.mean(values)
    return f"{mean:.3f} ({mean - half:.3f} to {mean + half:.3f})"


def verdict(rows: Sequence[Row], form: str) -> str:
    """How a form differs from attention seed by seed: the mean with its interval, and who is better."""
    differences = [row[form] - row["attention"] for row in rows]
    half = T_975[len(rows)] * statistics.stdev(differences) / len(rows) ** 0.5
    mean = statistics.mean(differences)
    better = (mean > 0) == TASKS[rows[0]["task"]].higher_is_better
    word = "within noise" if abs(mean) <= half else "better" if better else "**worse**"
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f}), {word}"


def table(results: dict[str, Any]) -> list[str]:
    """One line for each task."""
    lines = [
        "| task | seeds | attention | Aaren from scratch | its difference, seed by seed | converted, not retrained "
        "| converted | its difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in TASKS:
        rows = [row for row in results["rows"] if row["task"] == name]
        if len(rows) > 1:
            cells = [name, str(len(rows)), *(interval([row[form] for row in rows]) for form in FORMS[:2])]
            cells += [verdict(rows, "scratch"), f"{statistics.mean(row['before retraining'] for row in rows):.3f}"]
            cells += [interval([row["converted"] for row in rows]), verdict(rows, "converted")]
            lines.append("| " + " | ".join(cells) + " |")
    absolute = [
        "",
        "| mean absolute error | attention | Aaren from scratch | converted | the last day again | window mean |",
        "|---|---|---|---|---|---|",
    ]
    for name, made in results["baselines"].items():
        rows = [row for row in results["rows"] if row["task"] == name]
        if len(rows) > 1:
            found = [interval([row[f"{form}, absolute"] for row in rows]) for form in FORMS]
            squared = [f"{errors[1]:.3f} (squared: {errors[0]:.3f})" for errors in made.values()]
            absolute.append("| " + " | ".join([name, *found, *squared]) + " |")
    return lines + absolute


def write() -> None:
    """`results.json` of what is in the cache, and the table into README.md."""
    rows = [json.loads(path.read_text()) for path in CACHE.glob("*-*.json")]
    rows.sort(key=lambda row: (list(TASKS).index(row["task"]), row["seed"]))
    forecasts = [name for name, task in TASKS.items() if not task.higher_is_better]
    results = {"rows": rows, "baselines": {name: baselines(name) for name in forecasts}}
    listed = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    text = f'{{\n  "rows": [\n{listed}\n  ],\n  "baselines": {json.dumps(results["baselines"])}\n}}\n'
    write_whole(RESULTS, text.encode())
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n".join([BEGIN, "", *table(results), "", END])
    write_whole(README, f"{before}{made}{after}".encode())


def main() -> None:
    """Measure, or write what was measured."""
    parser = argparse.ArgumentParser(description="attention and Aaren on real time series")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="results.json and README.md")
    measuring = commands.add_parser("measure", help="into the cache; what is there is not measured again")
    measuring.add_argument("names", nargs="*", default=list(TASKS))
    measuring.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    if options.command == "write":
        write()
        return
    torch.set_num_threads(1)
    CACHE.mkdir(exist_ok=True)
    for seed in options.seeds:
        for name in options.names:
            path = CACHE / f"{name}-{seed}.json"
            if not path.is_file():
                row = measure(name, seed)
                write_whole(path, json.dumps(row).encode())
                print(row, flush=True)


if __name__ == "__main__":
    main()
