"""Checkpoints of every format, whole, damaged, hostile or of another model."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor import load_weights
from tests.fuzzing.bytes import damaged
from tests.fuzzing.values import ESCAPE
from tests.fuzzing.verdict import Case, Outcome, of_function

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    State = dict[str, Any]


def _model() -> nn.Module:
    return nn.Sequential(OrderedDict(rnn=nn.GRU(3, 4), head=nn.Linear(4, 2)))


def _torch(state: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _safetensors(state: State) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in state.items()})


FORMATS: dict[str, Callable[[State], bytes]] = {
    "torch": _torch,
    "torch, legacy": lambda state: _torch(state, legacy=True),
    "torch, nested": lambda state: _torch({"epoch": 3, "model": {f"module.{k}": v for k, v in state.items()}}),
    "a whole module": lambda state: _torch(_model()),
    "safetensors": _safetensors,
}


class _Runs:
    """Runs a command when it is unpickled by one who trusts it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


def _described(shape: list[int], end: int, start: int = 0, dtype: str = "F32") -> bytes:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return _header(json.dumps({"head.weight": entry}).encode()) + bytes(64)


MUST_REFUSE: dict[str, Callable[[State, Path], bytes]] = {
    "empty": lambda state, marker: b"",
    "a text": lambda state, marker: b"hello, this is no checkpoint",
    "a page": lambda state, marker: b"<!DOCTYPE html><html></html>",
    "a Git LFS pointer": lambda state, marker: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "no tensors": lambda state, marker: _torch({"epoch": 3}),
    "a number": lambda state, marker: _torch(7),
    "a list": lambda state, marker: _torch(list(state.values())),
    "another shape": lambda state, marker: _torch({**state, "head.weight": torch.zeros(2, 5)}),
    "a name missing": lambda state, marker: _torch({k: v for k, v in state.items() if k != "head.bias"}),
    "a name more": lambda state, marker: _torch({**state, "head.scale": torch.ones(2)}),
    "a name that fills clipboards": lambda state, marker: _torch({**state, ESCAPE: torch.ones(2)}),
    "names of 100,000 characters": lambda state, marker: _torch({k * 10_000: v for k, v in state.items()}),
    "thousands of names": lambda state, marker: _torch({f"layer{i}": torch.ones(1) for i in range(5000)}),
    "complex numbers": lambda state, marker: _torch({k: v.to(torch.complex64) for k, v in state.items()}),
    "a pickle that runs a command": lambda state, marker: pickle.dumps(_Runs(marker)),
    "a checkpoint that runs a command": lambda state, marker: _torch({**state, "head.bias": _Runs(marker)}),
    "a deep header": lambda state, marker: _header(b'{"a":' * 50_000),
    "a header longer than the file": lambda state, marker: _header(b"{}", 1 << 60),
    "a tensor beyond the file": lambda state, marker: _described([2, 4], 1 << 40),
    "a tensor of 2**60 numbers": lambda state, marker: _described([1 << 30, 1 << 30], 32),
    "a tensor that ends before it begins": lambda state, marker: _described([2, 4], 0, 32),
    "a negative shape": lambda state, marker: _described([-2, -4], 32),
    "an unknown type": lambda state, marker: _described([2, 4], 32, dtype="F33"),
}
INDEXES = {
    "an index of files elsewhere": {"weight_map": {"head.weight": "../secret.safetensors"}},
    "an index of devices": {"weight_map": {"head.weight": "/dev/zero"}},
    "an index without a map": {"metadata": {}},
    "an index of numbers": {"weight_map": {"head.weight": 7}},
    "an index of itself": {"weight_map": {"head.weight": "model.safetensors.index.json"}},
    "an index of what is not there": {"weight_map": {"head.weight": "gone.safetensors"}},
}


def _state() -> State:
    torch.manual_seed(0)
    return dict(_model().state_dict())


def listed(what: str, folder: Path) -> Case:
    """One of the list."""
    path, marker = folder / "weights.ckpt", folder / "marker"
    path.write_bytes(MUST_REFUSE[what](_state(), marker))

    def load() -> Outcome:
        outcome = of_function(lambda: load_weights(_model(), path))
        return Outcome(outcome.refused, outcome.said, "code of the file ran" if marker.exists() else "")

    return Case(what, "refused", load)


def case(draw: random.Random, folder: Path) -> Case:
    """A checkpoint in `folder`, loaded into a small model."""
    kind = draw.choice(("good", "listed", "listed", "damaged", "damaged", "damaged", "damaged", "index", "special"))
    path = folder / "weights.ckpt"

    def load() -> Outcome:
        return of_function(lambda: load_weights(_model(), path))

    if kind == "listed":
        return listed(draw.choice(list(MUST_REFUSE)), folder)
    if kind == "index":
        what = draw.choice([*INDEXES, "an index that is deep"])
        path = folder / "model.safetensors.index.json"
        path.write_text("[" * 100_000 if what not in INDEXES else json.dumps(INDEXES[what]))
        return Case(what, "refused", load)
    if kind == "special":
        what = draw.choice(("a pipe", "a device", "a folder", "missing", "a long name"))
        path = {"a device": folder / "device", "a long name": folder / ("x" * 300)}.get(what, path)
        if what == "a pipe":
            os.mkfifo(path)
        elif what == "a device":
            path.symlink_to("/dev/zero")
        elif what == "a folder":
            path.mkdir()
        return Case(what, "refused", load)
    word = draw.choice(list(FORMATS))
    content = FORMATS[word](_state())
    if kind == "good":
        path.write_bytes(content)
        return Case(word, "accepted", load)
    what, content = damaged(content, draw)
    path.write_bytes(content)
    return Case(f"{word} with {what}", "either", load)
