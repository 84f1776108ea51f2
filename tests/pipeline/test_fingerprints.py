"""Whatever a result follows from changes its fingerprint, and what does not follow from it leaves it alone."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest
import torch

from compressor.pipeline.fingerprints import changes, fingerprints
from compressor.task import loading
from compressor.task.files_read import noting_files
from compressor.task.samples import Sample

TASK = """
from pathlib import Path
import torch
from torch import nn
from compressor import Task
from parts.layers import layer

HERE = Path(__file__).parent
WORDS = (HERE / "words.txt").read_text()

class Small(Task):
    inputs = {"x": {0: "batch"}}
    outputs = {"y": {0: "batch"}}
    length = max_length = 3
    def model(self):
        torch.manual_seed(0)
        return layer()
    def example(self, batch, length):
        return torch.randn(batch, 5)
    def batches(self, generator):
        with open(HERE / "more.txt", "rb") as stream:
            yield (torch.full((2, 5), float(len(stream.read()))),), torch.zeros(2)
    def loss(self, outputs, target):
        return outputs.sum()
    def evaluate(self, forward):
        return 1.0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.split(".")[0] == "parts"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "words.txt").write_text("some words")
    (tmp_path / "more.txt").write_text("more")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "layers.py").write_text("from torch import nn\ndef layer(): return nn.Linear(5, 2)\n")
    return tmp_path


def taken(folder, *, spoil=False):
    task = loading.load(str(folder / "task.py"))
    model = task.model()
    if spoil:
        with torch.no_grad():
            model.bias[0] += 1
    with noting_files(task.opened):
        ((inputs, _),) = task.batches(torch.Generator())
    return fingerprints(task, model, [Sample("batches", inputs)])


def test_code_and_data_of_the_task_are_known_by_what_they_hold(folder):
    found = taken(folder)
    assert sorted(found.code) == ["parts/layers.py", "task.py"]
    assert sorted(found.data) == ["more.txt", "words.txt"]
    assert found == taken(folder)
    assert changes(found, taken(folder), str(folder / "task.py")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("task.py", TASK + "\n# a word\n"),
        ("parts/layers.py", "from torch import nn\ndef layer(): return nn.Linear(5, 2) # as before\n"),
        ("words.txt", "some other words"),
    ],
)
def test_a_file_that_was_changed_is_named(folder, name, text):
    before = taken(folder)
    (folder / name).write_text(text)
    assert changes(before, taken(folder), str(folder / "task.py")) == [f"{name} was changed"]


def test_other_weights_other_inputs_and_a_file_that_is_gone_are_told(folder):
    before = taken(folder)
    assert changes(before, taken(folder, spoil=True), str(folder / "task.py")) == [
        "the model has other weights or another structure: its checkpoint was changed"
    ]
    (folder / "more.txt").write_text("longer")
    (folder / "words.txt").rename(folder / "elsewhere.txt")
    told = changes(before, before.model_copy(update={"samples": "other"}), str(folder / "task.py"))
    assert told == [
        "more.txt was changed", "words.txt is gone", "the task gives other inputs: its data was changed",
    ]  # fmt: skip


def test_another_version_of_a_package_is_told_with_both(folder):
    found = taken(folder)
    later = found.model_copy(update={"versions": {**found.versions, "torch": "99.0"}})
    (told,) = changes(found, later, str(folder / "task.py"))
    assert told == f"torch is 99.0 and was {metadata.version('torch')}"


def test_a_file_too_large_to_be_read_whole_is_known_by_its_size_and_its_ends(folder, monkeypatch):
    from compressor.pipeline import fingerprints as module

    monkeypatch.setattr(module, "_WHOLE", 100)
    monkeypatch.setattr(module, "_ENDS", 10)
    (folder / "words.txt").write_text("a" * 200)
    before = taken(folder)
    for text in ("a" * 201, "b" + "a" * 199, "a" * 199 + "b"):
        (folder / "words.txt").write_text(text)
        assert changes(before, before, str(folder / "task.py")) == ["words.txt was changed"]
