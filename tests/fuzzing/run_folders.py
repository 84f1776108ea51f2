"""Run folders from anywhere: their report shown, their model rebuilt."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor import checkpoint
from tests.fuzzing.bytes import damaged
from tests.fuzzing.values import ESCAPE, spoilt
from tests.fuzzing.verdict import Case, Outcome, of_command, of_function
from tests.report.sample import sample

if TYPE_CHECKING:
    import random
    from pathlib import Path

_FORMS = ("table", "md", "html", "json")
_RECORDS: tuple[dict[str, Any], ...] = (
    {"kind": "resize", "shapes": {"0.weight": [5, 3], "0.bias": [5]}},
    {"kind": "sizes", "sizes": {"2.size": 3}},
    {"kind": "edges", "module": "1", "inputs": {"0": {"axis": 2, "size": 5, "kept": [0, 1, 2]}}, "outputs": {}},
    {
        "kind": "replace",
        "module": "0",
        "with": "low_rank_linear",
        "record": {"in_features": 3, "out_features": 5, "rank": 2, "bias": True},
    },
    {"kind": "heads", "module": "0", "heads": 1},
)


class _Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.size = 7


class _Small:
    """As much of a task as a rebuilt model needs."""

    attention: dict[str, Any] = {}

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 5), nn.GRU(5, 7), _Sized())


@cache
def _report() -> str:
    return sample().to_json()


def case(draw: random.Random, folder: Path) -> Case:
    """A run folder, spoilt or not."""
    return draw.choice((_shown, _shown, _shown, _loaded, _loaded, _committed))(draw, folder)


def _committed(draw: random.Random, folder: Path) -> Case:
    """A commit that was not finished, and that names what it should not: nothing outside of the run's folder goes."""
    run, outside = folder / "run", folder / "kept"
    (run / "unfinished").mkdir(parents=True)
    outside.write_text("kept")
    (run / "report.json").write_text(_report())
    commit: Any = {"files": ["report.json"], "remove": ["model.onnx"]}
    names = ("", "..", "../kept", str(outside), "unfinished", ".", ESCAPE, "x" * 300)
    commit[draw.choice(("files", "remove"))] += draw.sample(names, 3)
    what = spoilt(commit, draw) if draw.random() < 0.5 else "names elsewhere"
    text = "[" * 100_000 if draw.random() < 0.1 else json.dumps(commit)
    (run / "unfinished" / "commit.json").write_text(text)

    def show() -> Outcome:
        outcome = of_command("report", run)
        lost = "" if outside.is_file() and outside.read_text() == "kept" else "a file elsewhere was touched"
        return Outcome(outcome.refused, outcome.said, outcome.crash or lost)

    return Case(f"a commit with {what}", "either", show)


def _shown(draw: random.Random, folder: Path) -> Case:
    file, form = folder / "report.json", draw.choice(_FORMS)

    def run() -> Any:
        return of_command("report", folder, "--format", form)

    kind = draw.choice(("good", "deep", "spoilt", "spoilt", "spoilt", "spoilt", "damaged", "damaged"))
    if kind == "good":
        file.write_text(_report())
        return Case(f"a report as {form}", "accepted", run)
    if kind == "deep":
        text = draw.choice(("[" * 200_000, '{"a":' * 200_000, '{"recipe": ' + "[" * 5000 + "]" * 5000 + "}", "null"))
        file.write_text(text)
        return Case("a deep report", "refused", run)
    if kind == "spoilt":
        facts = json.loads(_report())
        what = spoilt(facts, draw)
        file.write_text(json.dumps(facts))
        return Case(f"a report with {what} as {form}", "either", run)
    what, content = damaged(_report().encode(), draw)
    file.write_bytes(content)
    return Case(f"a report with {what} as {form}", "either", run)


def _loaded(draw: random.Random, folder: Path) -> Case:
    torch.manual_seed(0)
    checkpoint.save(folder, _Small().model(), [])

    def run() -> Any:
        return of_function(lambda: checkpoint.load(folder, _Small()))  # type: ignore[arg-type]

    record, weights = folder / checkpoint.RECORD_FILE, folder / checkpoint.WEIGHTS_FILE
    kind = draw.choice(("good", "record", "record", "record", "damaged record", "damaged weights", "missing"))
    if kind == "good":
        return Case("a model", "accepted", run)
    if kind == "missing":
        draw.choice((record, weights)).unlink()
        return Case("a model with a file missing", "refused", run)
    if kind == "record":
        facts = json.loads(record.read_text())
        facts["structure"] = [json.loads(json.dumps(draw.choice(_RECORDS)))]
        what = spoilt(facts, draw)
        record.write_text(json.dumps(facts))
        return Case(f"a record with {what}", "either", run)
    file = record if kind == "damaged record" else weights
    what, content = damaged(file.read_bytes(), draw)
    file.write_bytes(content)
    return Case(f"{kind} with {what}", "either", run)
