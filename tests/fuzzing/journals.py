"""Journals from anywhere: parts of an unfinished run that are damaged or hostile."""

from __future__ import annotations

import copy
import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import torch

from compressor.files.staged import UNFINISHED
from compressor.pipeline.journal import FOLDER, Journal
from compressor.pipeline.parts import Facts
from compressor.report import Score
from tests.fuzzing.bytes import damaged
from tests.fuzzing.values import ESCAPE, STRANGE, spoilt
from tests.fuzzing.verdict import Case, Outcome, of_function

if TYPE_CHECKING:
    import random
    from pathlib import Path

_PART, _MADE = "step 1 (magnitude)", "model.onnx"
_FORM: Facts[Score] = Facts(Score)
_SCORE = Score(metric="accuracy", value=0.5)
_FILES: tuple[Any, ...] = (
    *({"/dev/zero": "0"}, {"../kept": "0"}, {"": "0"}, {".": "0"}, {ESCAPE: "0"}, {"x" * 5000: "0"}, {"a\x00b": "0"}),
    *([], None, 7, {_MADE: 7}, {_MADE: None}, {"pipe": "0"}),
)


class _Runs:
    """Runs a command if it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def case(draw: random.Random, folder: Path) -> Case:
    """A journal with one part in it, which is asked for again."""
    staging, marker = folder / UNFINISHED, folder / "marker"
    staging.mkdir()
    (folder / "kept").write_text("kept")
    (staging / _MADE).write_text("a file")
    os.mkfifo(staging / "pipe")
    journal = _journal(staging)
    journal.part(_PART, _FORM, lambda: _SCORE, files=lambda _: (_MADE,))
    journal.snapshots(_PART).save(lambda: {"w": torch.ones(2)}, lambda: {"epoch": 3})
    part = next((staging / FOLDER).glob("*magnitude).safetensors"))
    what = _spoil(draw, part, marker)

    def run() -> Outcome:
        outcome = of_function(lambda: _asked(_journal(staging)))
        crash = "code of the file ran" if marker.exists() else ""
        if (folder / "kept").read_text() != "kept":
            crash = "a file elsewhere was touched"
        return Outcome(outcome.refused, outcome.said, crash)

    return Case(f"a part {what}", "accepted" if what == "as it is" else "either", run)


def _journal(staging: Path) -> Journal:
    return Journal(staging, torch.device("cpu"))


def _asked(journal: Journal) -> None:
    """All that a run asks of a journal when it goes on."""
    journal.names()
    journal.files()
    journal.snapshots(_PART).load()
    value = journal.part(_PART, _FORM, lambda: _SCORE, files=lambda _: (_MADE,))
    assert isinstance(value, Score), value
    assert all(isinstance(seconds, float) for seconds in journal.reused)


def _spoil(draw: random.Random, path: Path, marker: Path) -> str:
    from safetensors import safe_open
    from safetensors.torch import save

    kind = draw.choice(("as it is", "damaged", "damaged", "pickle", "pipe", "folder", "deep", *("head",) * 5, "files"))
    if kind == "as it is":
        return kind
    if kind == "damaged":
        what, content = damaged(path.read_bytes(), draw)
        path.write_bytes(content)
        return what
    if kind in ("pipe", "folder"):
        path.unlink()
        (os.mkfifo if kind == "pipe" else os.mkdir)(path)
        return f"that is a {kind}"
    if kind == "pickle":
        if draw.random() < 0.5:
            path.write_bytes(pickle.dumps(_Runs(marker)))
        else:
            torch.save({"part": _Runs(marker)}, path)
        return "that is a pickle"
    with safe_open(path, framework="pt") as content:
        head = json.loads(content.metadata()["part"])
        tensors = {key: content.get_tensor(key).clone() for key in content.keys()}  # noqa: SIM118  # no mapping
    text, what = None, ""
    if kind == "deep":
        text, what = "[" * draw.choice((900, 100_000)), "that is deep"
    elif kind == "files":
        head["files"] = copy.deepcopy(draw.choice(_FILES))
        what = f"with files {str(head['files'])[:40]!r}"
    elif draw.random() < 0.3:
        key = draw.choice(list(head))
        head[key] = copy.deepcopy(draw.choice(STRANGE))
        what = f"with `{key}` {str(head[key])[:30]!r}"
    else:
        what = f"with {spoilt(head, draw)}"
    if draw.random() < 0.2 and tensors:
        name = draw.choice(list(tensors))
        tensors[name] = draw.choice((torch.zeros(3), torch.zeros(0), torch.zeros(5, dtype=torch.uint8)))
        what += f", and another tensor `{name}`"
    path.write_bytes(save(tensors, {"part": json.dumps(head) if text is None else text}))
    return what
