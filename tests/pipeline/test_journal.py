"""A run that is killed anywhere goes on with the same command, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import pickle
import random

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from compressor.errors import OutputError
from compressor.files.staged import UNFINISHED
from compressor.pipeline.comparing import facts_that_differ, files_that_differ
from compressor.pipeline.journal import Journal
from compressor.pipeline.parts import Facts
from compressor.report import Score
from tests import folders
from tests.folders import BLOBS, recipe_of, write_folder

RECIPE = recipe_of(
    "{method: magnitude, prune: weights, sparsity: 0.3}",
    "{method: magnitude, prune: units, ratio: 0.5}",
    "{method: retrain, epochs: 3, lr: 1e-2, schedule: cosine, distill: true, keep_best: true, noise_eta: 0.01}",
    exports=("{format: onnx, stream: true}", "{format: onnx, name: small, precision: int8}"),
    seed=3,
)
DRAWING = BLOBS.replace("import torch\n", "import random\nimport numpy as np\nimport torch\n", 1).replace(
    "            yield tuple(",
    "            if random.random() < 0.2 or np.random.rand() < 0.2 or torch.rand(()) < 0.2: continue\n"
    "            yield tuple(",
)
"""Its batches are drawn from every generator that there is."""


class Killed(BaseException):
    """As a signal that nothing catches."""


class Killer(Journal):
    """Ends the process, so to speak, after so many parts were kept."""

    left = 10**6

    def _write(self, *arguments):
        super()._write(*arguments)
        type(self).left -= 1
        if type(self).left <= 0:
            raise Killed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("compressor.pipeline.folder.Journal", Killer)
    monkeypatch.setattr("compressor.pipeline.journal._SPARSELY", 0.0)  # a snapshot after every epoch
    return write_folder(tmp_path, DRAWING, RECIPE)


def carried_out(folder, out, *, kill_after=10**6, overrides=(), **options):
    Killer.left = kill_after
    random.seed(1)
    np.random.seed(1)
    return folders.carried_out(folder, out, overrides=overrides, **options)


def same(folder, one, other):
    reports = [json.loads((folder / out / "report.json").read_text()) for out in (one, other)]
    files = files_that_differ(folder / one, folder / other, reports[0]["files"])
    return files + facts_that_differ(*reports) == []


@pytest.mark.slow
def test_a_run_that_is_killed_after_each_of_its_parts_ends_with_the_same_bytes(folder):
    carried_out(folder, "whole")
    kills = 0
    while True:
        try:
            carried_out(folder, "killed", kill_after=1)
        except Killed:
            kills += 1
            assert not (folder / "killed" / "report.json").exists()
        else:
            break
    assert kills == 3 + 3 + 3 + 4 + 4, "steps, epochs, files, metrics, other measurements"
    assert same(folder, "whole", "killed")


LEARNED = """
schema_version: 1
name: learned
seed: 3
steps:
  - {method: retrain, epochs: 4, lr: 1e-2, warmup: 0.1, distill: true, keep_best: true, hold_back: 2,
     average_last: 0.7, quantize: mixed, bits: 6, learn_steps: true}
exports: [{format: onnx}]
"""


def test_averages_and_learned_steps_go_on_after_a_kill_and_end_with_the_same_bytes(folder):
    (folder / "recipe.yaml").write_text(LEARNED)
    carried_out(folder, "whole")
    [step] = json.loads((folder / "whole" / "report.json").read_text())["steps"]
    averaged = ["metric of the average" in row for row in step["history"]]
    assert averaged == [False, True, True, True], "so a kill falls before, between and after steps that are averaged"
    for parts in (3, 1, 1):  # metric, original.onnx, epoch 1; 2; 3
        killed(folder, "killed", parts)
    kept = [safe_open(path, "pt").keys() for path in (folder / "killed" / UNFINISHED / "journal").glob("*.safetensors")]
    assert any("mean." in name for names in kept for name in names), "the journal holds the averaged weights"
    carried_out(folder, "killed")
    assert same(folder, "whole", "killed")


def killed(folder, out, parts, **options):
    with pytest.raises(Killed):
        carried_out(folder, out, kill_after=parts, **options)


def test_a_run_goes_on_from_the_step_and_the_file_that_were_finished(folder):
    short = {"quick": True, "overrides": ["exports=[{format: onnx}]"]}
    carried_out(folder, "whole", **short)
    killed(folder, "killed", 5, **short)  # metric, original.onnx, two steps, the only epoch of the third
    assert sorted(path.name for path in (folder / "killed").iterdir()) == [UNFINISHED]
    killed(folder, "killed", 3, **short)  # the third step, model.onnx, the metric of the first file
    log = (folder / "killed" / UNFINISHED / "run.log").read_text()
    assert "going on with the unfinished run" in log
    assert log.count("step 1 of 3") == 1
    carried_out(folder, "killed", **short)
    assert same(folder, "whole", "killed")
    assert not (folder / "killed" / UNFINISHED).exists()


def test_a_finished_run_stays_until_the_next_one_is_finished(folder):
    short = {"quick": True, "overrides": ["exports=[{format: onnx}]"]}
    carried_out(folder, "out", **short)
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    killed(folder, "out", 4, **short)
    assert before == {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"overrides": ["steps.1.ratio=0.4"]}, "steps.1.ratio is 0.5 there and 0.4 now"),
        ({"threads": 2}, "threads is 1 there and 2 now"),
        ({"file": ("task.py", DRAWING + "\n# a word\n")}, "task.py was changed"),
        ({"file": ("task.py", DRAWING.replace("manual_seed(1)", "manual_seed(2)"))}, "the model has other weights"),
        ({"file": ("task.py", DRAWING.replace("data(1, 160)", "data(7, 160)"))}, "the task gives other inputs"),
    ],
)  # fmt: skip
def test_a_run_under_other_conditions_is_refused_with_what_changed(folder, change, told):
    killed(folder, "out", 1)
    before = {path.name: path.read_bytes() for path in (folder / "out" / UNFINISHED / "journal").iterdir()}
    if "file" in change:
        name, text = change.pop("file")
        (folder / name).write_text(text)
    with pytest.raises(OutputError) as caught:
        carried_out(folder, "out", **change)
    assert "holds an unfinished run under other conditions:\n" in caught.value.message
    assert told in caught.value.message
    assert "--restart" in caught.value.hint
    assert before == {path.name: path.read_bytes() for path in (folder / "out" / UNFINISHED / "journal").iterdir()}


def test_force_replaces_an_unfinished_run_of_another_recipe_too(folder):
    short = ["exports=[{format: onnx}]", "steps=[{method: magnitude, prune: units, ratio: 0.5}]"]
    killed(folder, "out", 1, quick=True)
    assert carried_out(folder, "out", overrides=short, quick=True, force=True).quick
    assert not (folder / "out" / UNFINISHED).exists()


def test_a_rehearsal_does_not_take_the_place_of_an_unfinished_run_but_the_other_way_round(folder):
    killed(folder, "full", 1)
    with pytest.raises(OutputError, match="quick is False there and True now"):
        carried_out(folder, "full", quick=True)
    killed(folder, "rehearsed", 1, quick=True)
    killed(folder, "rehearsed", 1)
    assert (
        json.loads((folder / "rehearsed" / UNFINISHED / "journal" / "run.json").read_text())["conditions"]["quick"]
        is False
    )


def journal(tmp_path):
    return Journal(tmp_path, torch.device("cpu"))


def test_a_part_gives_its_result_its_random_numbers_and_its_files_again(tmp_path):
    score = Score(metric="accuracy", value=0.1 + 0.2, higher_is_better=True)
    form: Facts[Score] = Facts(Score)

    def make():
        torch.rand(7), random.random(), np.random.rand()
        (tmp_path / "file").write_text("made")
        return score

    def following():
        return torch.rand(()).item(), random.random(), np.random.rand()

    assert journal(tmp_path).part("one", form, make, files=lambda _: ["file"]) == score
    expected = following()
    again = journal(tmp_path)
    assert again.part("one", form, pytest.fail, files=lambda _: ["file"]) == score
    assert following() == expected
    assert (again.files(), again.names()) == ({"file"}, ["one"])
    (tmp_path / "file").write_text("changed")
    made = []
    journal(tmp_path).part("one", form, lambda: made.append(1) or score)
    assert made == [1]


@pytest.mark.parametrize("spoil", [lambda text: text[: len(text) // 2], lambda text: b"", lambda text: b"{}" + text])
def test_a_part_that_is_damaged_is_made_again(tmp_path, spoil):
    form: Facts[float] = Facts(float)
    journal(tmp_path).part("one", form, lambda: 1.5)
    (path,) = (tmp_path / "journal").iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    assert journal(tmp_path).part("one", form, lambda: 2.5) == 2.5


class Writes:
    """Leaves a file if it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_in_the_place_of_a_part_is_not_loaded(tmp_path):
    form: Facts[float] = Facts(float)
    journal(tmp_path).part("one", form, lambda: 1.5)
    (path,) = (tmp_path / "journal").iterdir()
    torch.save({"facts": Writes(tmp_path / "ran")}, path)
    assert journal(tmp_path).part("one", form, lambda: 2.5) == 2.5
    path.write_bytes(pickle.dumps(Writes(tmp_path / "ran")))
    assert journal(tmp_path).part("one", form, lambda: 2.5) == 2.5
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"files": ["model.onnx"]},
        {"files": {"pipe": "0"}},
        {"files": {"/dev/zero": "0"}},
        {"files": {"../kept": "0"}},
        {"files": {"a\x00b": "0"}},
        {"files": {"model.onnx": 7}},
        {"seconds": "long"},
        {"seconds": [1.0]},
        {"facts": {"metric": 7}},
        {"facts": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_part_that_was_tampered_with_is_made_again(tmp_path, change):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "model.onnx").write_text("a file")
    journal = Journal(tmp_path, torch.device("cpu"))
    form, made = Facts(Score), []

    def make():
        made.append(1)
        return Score(metric="accuracy", value=0.5)

    journal.part("metric", form, make, files=lambda _: ["model.onnx"])
    _tamper(next((tmp_path / "journal").iterdir()), change)
    journal.files()
    assert journal.part("metric", form, make).value == 0.5
    assert len(made) == 2


def _tamper(path, change):
    with safe_open(path, framework="pt") as content:
        head = json.loads(content.metadata()["part"]) | change
        tensors = {key: content.get_tensor(key).clone() for key in content.keys()}  # noqa: SIM118  # no mapping
    path.write_bytes(save(tensors, {"part": json.dumps(head)}))
