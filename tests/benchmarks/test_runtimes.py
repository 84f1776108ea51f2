"""The cells of the table of runtimes."""

from pathlib import Path

import pytest
import torch

from benchmarks import runtimes


@pytest.fixture
def judged(monkeypatch):
    """Which cells were computed; each is right, and none is exported."""
    seen = []

    def cell(model, task, form, runtime, shared, **more):
        seen.append((form, runtime))
        return {"state": "ok", "error": 0.0}

    monkeypatch.setattr(runtimes, "_cell", cell)
    monkeypatch.setattr(runtimes, "locate", lambda name: None if name == "litert" else name)
    return seen


def test_cells_of_one_runtime_leave_those_of_others_as_they_are(judged):
    topology = runtimes.Topology("small", lambda: (torch.nn.Identity(), None))
    known = [
        {"topology": "small", "form": form, "runtime": runtime, "state": "ok", "error": 0.5, "seconds": 1.0}
        for form in runtimes.FORMS
        for runtime in ("onnxruntime", "ncnn")
    ]
    cells = runtimes.examine(topology, known, "tract")
    assert judged == [("sequence", "tract"), ("step", "tract")]
    assert [cell for cell in cells if cell["runtime"] != "tract"] == known
    assert len(cells) == 6


def test_a_runtime_that_is_not_installed_has_no_cells_instead_of_refusals(judged):
    topology = runtimes.Topology("small", lambda: (torch.nn.Identity(), None))
    cells = runtimes.examine(topology, [])
    assert "litert" in runtimes.TITLES
    assert {cell["runtime"] for cell in cells} == {"onnxruntime", *runtimes.CHECKED, *runtimes.TITLES} - {"litert"}


def test_a_runtime_computed_alone_adds_to_the_file_of_a_topology(judged, monkeypatch, tmp_path):
    topology = runtimes.Topology("small", lambda: (torch.nn.Identity(), None))
    monkeypatch.setattr(runtimes, "every_topology", lambda: [topology])
    for runtime in ("ncnn", "mnn"):
        monkeypatch.setattr("sys.argv", ["runtimes.py", "--out", str(tmp_path), "--runtime", runtime])
        assert runtimes.main() == 0
    cells = runtimes.read(Path(tmp_path), "")
    assert sorted((cell["form"], cell["runtime"]) for cell in cells) == [
        ("sequence", "mnn"), ("sequence", "ncnn"), ("step", "mnn"), ("step", "ncnn"),
    ]  # fmt: skip
