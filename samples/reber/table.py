"""Prunes the four Reber networks as arXiv 2407.20601 does and writes the results beside the published ones.

    python samples/reber/table.py measure gru lstm   # into samples/reber/cache/, can be stopped and started again
    python samples/reber/table.py write              # results.json from the cache, and the tables of README.md

For every fraction from 10 % to 100 % and each choice of matrices (both, i2h, h2h) the saved base weights are pruned
by one threshold over all layers, scored, and, where that cost something, retrained for one epoch and scored again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from compressor.files import write_whole  # noqa: E402
from compressor.task.contract import Evaluation  # noqa: E402
from compressor.task.view import TaskView  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reber.task import Reber
    from torch import nn

    from compressor.methods.base import Context
    from compressor.task.contract import Forward, Task

Matrices = Literal["both", "i2h", "h2h"]
Row = dict[str, Any]
"""percent; accuracies after pruning (`pruned`), after one epoch of retraining (`retrained`, None if not done) and after
each further one (`later`): the total, then families 0..8, all 0..1."""

HERE = Path(__file__).parent
CACHE = HERE / "cache"
RESULTS = HERE / "results.json"
README = HERE / "README.md"
SEED = 0
CELLS = {"tanh": "Tanh", "relu": "ReLU", "gru": "GRU", "lstm": "LSTM"}
MATRICES: tuple[Matrices, ...] = ("both", "i2h", "h2h")
PERCENTS = range(10, 101, 10)
FAMILY_PERCENTS = (70, 80, 90)
NO_MEMORY = ("h2h", 100)
"""Every hidden-to-hidden weight removed: retrained for longer, since the thesis found that gates make up for them."""
NO_MEMORY_EPOCHS = 3
RETRAIN_ABOVE = 0.001
"""A network that lost at most this much accuracy is not retrained: there is nothing to win back."""
SAFE_LOSS = 2.0
"""A level of pruning is called safe where it costs at most this many points of accuracy."""
BEGIN, END = "<!-- begin: written by table.py -->", "<!-- end: written by table.py -->"

PUBLISHED_BASE = (93.73, 100.0, 100.0, 100.0)
"""Test accuracy in % before pruning, Tanh, ReLU, GRU, LSTM."""
PUBLISHED: dict[Matrices, dict[int, tuple[str, str, str, str]]] = {
    "both": {
        **dict.fromkeys((10, 20, 30, 40), ("93.73", "100", "100", "100")),
        50: ("93.73 → 93.73", "99.76 → 100", "100 → 100", "100 → 100"),
        60: ("93.73 → 93.73", "99.30 → 100", "99.98 → 100", "100 → 100"),
        70: ("93.30 → 93.73", "98.58 → 100", "99.78 → 100", "80.29 → 100"),
        80: ("91.92 → 93.30", "54.86 → 100", "99.36 → 100", "66.78 → 100"),
        90: ("65.58 → 92.46", "50.30 → 100", "55.12 → 100", "49.49 → 99.97"),
        100: ("49.42 → 50.58", "50.58 → 50.58", "50.58 → 50.58", "50.58 → 49.42"),
    },
    "i2h": {
        **dict.fromkeys((10, 20, 30, 40, 50, 60), ("≥ 93.66", "100", "100", "100")),
        70: ("93.09 → 93.71", "100 → 100", "99.95 → 100", "99.22 → 100"),
        80: ("81.39 → 93.54", "94.98 → 100", "99.68 → 100", "94.56 → 99.98"),
        90: ("49.42 → 73.90", "90.46 → 100", "87.60 → 100", "62.13 → 100"),
        100: ("never recovers", "never recovers", "never recovers", "never recovers"),
    },
    "h2h": {
        **dict.fromkeys((10, 20, 30, 40, 50), ("93.73", "100", "≥ 99.98", "100")),
        60: ("93.73 → 93.73", "99.66 → 100", "99.76 → 100", "100 → 100"),
        70: ("92.64 → 93.73", "99.07 → 100", "99.28 → 100", "100 → 100"),
        80: ("93.73 → 93.73", "64.86 → 100", "95.62 → 100", "99.90 → 100"),
        90: ("72.03 → 93.70", "46.35 → 100", "95.07 → 100", "95.26 → 100"),
        100: ("49.42 → 51.84", "50.58 → 51.63", "57.33 → 97.39", "52.08 → 98.75"),
    },
}
"""Test accuracy in % after pruning → after one epoch of retraining, Tanh, ReLU, GRU, LSTM (the thesis's tables)."""


def accuracies(task: Task, forward: Forward) -> list[float]:
    """The accuracy on the test strings, then that of families 0..8."""
    import torch

    with torch.no_grad():
        evaluation = task.evaluate(forward)
    assert isinstance(evaluation, Evaluation)
    assert evaluation.per_sample is not None
    return [round(value, 5) for value in (float(evaluation.per_sample.mean()), *evaluation.parts.values())]


class Watched(TaskView):
    """The task as a step sees it: an epoch of retraining is scored on the test strings, as in the thesis.

    Nothing is chosen by that score.
    """

    def __init__(self, task: Reber) -> None:
        super().__init__(task)
        self.epochs: list[list[float]] = []
        """The accuracies after each epoch."""

    def validate(self, forward: Forward) -> float:
        """The accuracy on the test strings."""
        self.epochs.append(accuracies(self.task, forward))
        return self.epochs[-1][0]


def prune_and_retrain(task: Reber, matrices: Matrices, percent: int, base: float) -> Row:
    """One row: the saved network, pruned, scored, retrained for an epoch where that lost accuracy, scored again."""
    from compressor.methods.base import State
    from compressor.methods.magnitude import Magnitude
    from compressor.methods.retrain import Retrain

    watched = Watched(task)
    context = make_context(watched, task.model().eval())
    magnitude = Magnitude(prune="weights", matrices=matrices, sparsity=percent / 100, scope="global")
    pruned = magnitude.apply(State(context.original), context).state
    row: Row = {"percent": percent, "pruned": accuracies(task, pruned.model.eval()), "retrained": None, "later": []}
    if base - row["pruned"][0] > RETRAIN_ABOVE:
        epochs = NO_MEMORY_EPOCHS if (matrices, percent) == NO_MEMORY else 1
        Retrain(epochs=epochs, optimizer="adam", lr=1e-3, clip=5.0).apply(pruned, context)
        row["retrained"], *row["later"] = watched.epochs
    return row


def make_context(watched: Watched, original: nn.Module) -> Context:
    """What a recipe's steps would be given, on the CPU."""
    import torch

    from compressor.methods.base import Context
    from compressor.progress import Silent

    generator = torch.Generator().manual_seed(SEED)
    return Context(watched, original, torch.device("cpu"), generator, Silent())


def fingerprint(file: Path) -> str:
    """SHA-256, by which results are known to be of these weights."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def measure(cell: str) -> None:
    """All rows of one cell; the finished ones are read from the cache if they are of the same weights."""
    import torch
    from reber.task import TASKS
    from safetensors import safe_open

    torch.set_num_threads(1)
    task = TASKS[cell]()
    cache = CACHE / f"{cell}.json"
    digest = fingerprint(task.checkpoint)
    result = json.loads(cache.read_text()) if cache.exists() else {}
    if result.get("sha256") != digest:
        with safe_open(task.checkpoint, "pt") as file:
            training = file.metadata()
        base = accuracies(task, task.model().eval())
        result = {"epochs": int(training["epochs"]), "seed": int(training["seed"]), "sha256": digest, "base": base}
        result |= {matrices: [] for matrices in MATRICES}
    for matrices in MATRICES:
        finished = {row["percent"] for row in result[matrices]}
        for percent in reversed(PERCENTS):
            if percent in finished:
                continue
            row = prune_and_retrain(task, matrices, percent, result["base"][0])
            result[matrices] = sorted([*result[matrices], row], key=lambda item: item["percent"])
            CACHE.mkdir(exist_ok=True)
            write_whole(cache, json.dumps(result).encode())
            print(f"{cell} {matrices} {percent} %: {cell_text(row)}", flush=True)


def cell_text(row: Row) -> str:
    """The total accuracy in %: after pruning → after retraining."""
    pruned = f"{100 * row['pruned'][0]:.2f}"
    return pruned if row["retrained"] is None else f"{pruned} → {100 * row['retrained'][0]:.2f}"


def results_text(results: dict[str, Any]) -> str:
    """JSON with one row to a line, so that a change is easy to read."""
    cells = []
    for cell, result in results.items():
        entries = [f'    "{key}": {json.dumps(value)}' for key, value in result.items() if key not in MATRICES]
        for matrices in MATRICES:
            rows = ",\n".join(f"      {json.dumps(row)}" for row in result[matrices])
            entries.append(f'    "{matrices}": [\n{rows}\n    ]')
        cells.append(f'  "{cell}": {{\n' + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(cells) + "\n}\n"


def markdown_row(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def base_table(results: dict[str, Any]) -> list[str]:
    """Accuracy of the networks before pruning."""
    lines = [markdown_row("cell", "epochs", "ours", "thesis (50 epochs)"), "|---|---|---|---|"]
    for cell, published in zip(CELLS, PUBLISHED_BASE, strict=True):
        result = results[cell]
        ours = f"{100 * result['base'][0]:.2f}"
        lines.append(markdown_row(CELLS[cell], str(result["epochs"]), ours, f"{published:.2f}"))
    return lines


def pruning_table(results: dict[str, Any], matrices: Matrices) -> list[str]:
    """Ours and the thesis's accuracies side by side, one line for each fraction."""
    titles = [title for name in CELLS.values() for title in (name, f"{name}, thesis")]
    lines = [markdown_row("pruned %", *titles), "|---" * (len(titles) + 1) + "|"]
    for index, percent in enumerate(PERCENTS):
        ours = [cell_text(results[cell][matrices][index]) for cell in CELLS]
        pairs = zip(ours, PUBLISHED[matrices][percent], strict=True)
        lines.append(markdown_row(str(percent), *(text for pair in pairs for text in pair)))
    return lines


def safe_level(base: float, pruned: Mapping[int, float]) -> int:
    """The highest level (%) up to which every level cost at most `SAFE_LOSS`, in the unit of the accuracies (%)."""
    level = 0
    for percent in sorted(pruned):
        if base - pruned[percent] > SAFE_LOSS:
            break
        level = percent
    return level


def published_pruned(matrices: Matrices, cell: str) -> dict[int, float]:
    """The thesis's accuracies right after pruning, %; where it gives a bound, the bound."""
    column = list(CELLS).index(cell)
    texts = {percent: texts[column].split(" → ")[0] for percent, texts in PUBLISHED[matrices].items()}
    return {p: 0.0 if text.startswith("never") else float(text.removeprefix("≥ ")) for p, text in texts.items()}


def safe_table(results: dict[str, Any]) -> list[str]:
    """Safe levels of ours and of the thesis."""
    titles = [title for name in CELLS.values() for title in (name, f"{name}, thesis")]
    lines = [markdown_row("pruned", *titles), "|---" * (len(titles) + 1) + "|"]
    for matrices in MATRICES:
        cells = []
        for cell, published in zip(CELLS, PUBLISHED_BASE, strict=True):
            ours = {row["percent"]: 100 * row["pruned"][0] for row in results[cell][matrices]}
            cells.append(str(safe_level(100 * results[cell]["base"][0], ours)))
            cells.append(str(safe_level(published, published_pruned(matrices, cell))))
        lines.append(markdown_row(matrices, *cells))
    return lines


def family_table(results: dict[str, Any], matrices: Matrices) -> list[str]:
    """Accuracy by family before pruning, after it, and after an epoch of retraining."""
    lines = [markdown_row("cell", "state", "valid", *(str(number) for number in range(1, 9))), "|---" * 11 + "|"]
    for cell, name in CELLS.items():
        states = [("base", results[cell]["base"])]
        for row in results[cell][matrices]:
            if row["percent"] in FAMILY_PERCENTS:
                states.append((f"{row['percent']} % pruned", row["pruned"]))
                states += [(f"{row['percent']} %, retrained", row["retrained"])] if row["retrained"] else []
        for state, values in states:
            lines.append(markdown_row(name, state, *(f"{100 * value:.1f}" for value in values[1:])))
    return lines


def no_memory_table(results: dict[str, Any]) -> list[str]:
    """Epoch by epoch without hidden-to-hidden weights: the total, and family 1 in brackets."""
    titles = ["after pruning", *(f"epoch {number}" for number in range(1, NO_MEMORY_EPOCHS + 1))]
    lines = [markdown_row("cell", *titles), "|---" * (len(titles) + 1) + "|"]
    for cell, name in CELLS.items():
        row = results[cell][NO_MEMORY[0]][PERCENTS.index(NO_MEMORY[1])]
        states = [row["pruned"], row["retrained"], *row["later"]]
        lines.append(markdown_row(name, *(f"{100 * state[0]:.2f} ({100 * state[2]:.1f})" for state in states)))
    return lines


def tables(results: dict[str, Any]) -> str:
    """Everything that the README takes from the results."""
    titles: dict[Matrices, str] = {
        "both": "Input-to-hidden and hidden-to-hidden weights (both)",
        "i2h": "Input-to-hidden weights only (i2h)",
        "h2h": "Hidden-to-hidden weights only (h2h)",
    }
    lines = ["### Before pruning", "", *base_table(results)]
    for matrices, title in titles.items():
        lines += ["", f"### {title}", "", *pruning_table(results, matrices)]
    lines += ["", "### Highest level that costs at most 2 points before any retraining", "", *safe_table(results)]
    lines += ["", "### Accuracy by family, both", "", *family_table(results, "both")]
    lines += ["", "### Without any hidden-to-hidden weight (family 1 in brackets)", "", *no_memory_table(results)]
    return "\n".join(lines)


def with_tables(readme: str, results: dict[str, Any]) -> str:
    """The README's text with fresh tables between the two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(results)}\n\n{END}{after}"


def write() -> None:
    """Bring the cache into `results.json` and its numbers into the README."""
    results = {cell: json.loads((CACHE / f"{cell}.json").read_text()) for cell in CELLS}
    write_whole(RESULTS, results_text(results).encode())
    write_whole(README, with_tables(README.read_text(encoding="utf-8"), results).encode())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write")
    measuring = commands.add_parser("measure")
    measuring.add_argument("cells", nargs="*", choices=[*CELLS, []], default=[])
    options = parser.parse_args()
    if options.command == "write":
        write()
        return
    for cell in options.cells or CELLS:
        measure(cell)


if __name__ == "__main__":
    main()
