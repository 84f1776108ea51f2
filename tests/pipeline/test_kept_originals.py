"""The original's export is taken from an earlier run if all that it follows from is the same; its metric never is."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys

import pytest
import torch

from compressor.pipeline import kept_originals
from compressor.pipeline.comparing import facts_that_differ, files_that_differ
from compressor.pipeline.journal import Journal
from compressor.pipeline.parts import Facts
from compressor.progress import Silent
from compressor.report import Conditions, Fingerprints, Score
from tests.folders import BLOBS, carried_out, recipe_of


class Told(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "task.py").write_text(BLOBS)
    return tmp_path


def entries(folder):
    kept = folder / "cache" / "compressor" / "originals"
    return sorted(path for path in kept.iterdir()) if kept.exists() else []


def done(folder, out, *, ratio=0.5, cache=True, **options):
    """A finished run, and whether it took an original that was kept."""
    (folder / "recipe.yaml").write_text(recipe_of(f"{{method: magnitude, prune: units, ratio: {ratio}}}", seed=3))
    told, overrides = Told(), [f"{key}={value}" for key, value in options.items()]
    report = carried_out(folder, out, overrides=overrides, cache=cache, probes=False, progress=told)
    return report, any("is that of an earlier run" in line for line in told.lines)


def test_another_recipe_takes_the_original_and_ends_with_the_bytes_of_a_run_that_does_not(folder):
    assert done(folder, "first", ratio=0.25)[1] is False
    again, taken = done(folder, "again")
    plain, none = done(folder, "plain", cache=False)
    assert (taken, none, len(entries(folder))) == (True, False, 1)
    assert files_that_differ(folder / "again", folder / "plain", plain.files) == []
    facts = [json.loads(report.to_json()) for report in (again, plain)]
    assert facts_that_differ(*facts) == []
    assert again.original.artifact.seconds == 0.0
    assert again.original.score == plain.original.score


def _other_weights(folder):
    (folder / "task.py").write_text(BLOBS.replace("manual_seed(", "manual_seed(1 + "))


def _other_code(folder):
    (folder / "task.py").write_text(BLOBS + "\n    # another comment\n")


@pytest.mark.slow
@pytest.mark.parametrize("change", [_other_weights, _other_code])
def test_another_task_is_exported_again(folder, change):
    done(folder, "first")
    change(folder)
    assert done(folder, "second")[1] is False


def test_without_it_nothing_is_read_or_written(folder):
    done(folder, "first", cache=False)
    assert entries(folder) == []


FORM = Facts(Score)
SCORE = Score(metric="accuracy", value=0.5)
CONDITIONS = Conditions(
    device="cpu",
    threads=1,
    torch_threads=1,
    processes=1,
    probes=True,
    quick=False,
    fingerprints=Fingerprints(code={"task.py": "0"}, model="1", samples="2", data={}, versions={"torch": "2"}),
)


def kept(seed=0, **changes):
    return kept_originals.KeptOriginals(CONDITIONS.model_copy(update=changes), seed, torch.device("cpu"))


def journal(folder, name):
    staging = folder / name
    staging.mkdir()
    (staging / "original.onnx").write_bytes(b"a file")
    return Journal(staging, torch.device("cpu"))


def keep(folder, entry, *, name="made"):
    own = journal(folder, name)
    own.part("original.onnx", FORM, lambda: SCORE, files=lambda _: ["original.onnx"])
    kept().keep(entry, "original.onnx", own, [folder / name / "original.onnx"])


def taken(folder, entry, name="taken"):
    own = journal(folder, name)
    (folder / name / "original.onnx").unlink()
    return own, kept().take(entry, "original.onnx", own)


def test_a_part_and_its_file_are_taken_whole_and_took_no_time(folder):
    entry = kept().entry("x")
    keep(folder, entry)
    before = torch.get_rng_state()
    torch.manual_seed(9)
    own, found = taken(folder, entry)
    assert found
    assert own.part("original.onnx", FORM, None) == SCORE
    assert (folder / "taken" / "original.onnx").read_bytes() == b"a file"
    assert own.reused == (0.0, 0.0)
    assert torch.equal(torch.get_rng_state(), before)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["original.onnx", "part.safetensors"])
@pytest.mark.parametrize("change", [_cut, _link, _pipe, os.unlink])
def test_what_is_not_whole_is_not_taken(folder, name, change):
    entry = kept().entry("x")
    keep(folder, entry)
    change(entry / name)
    if (name, change) != ("part.safetensors", _link):
        assert taken(folder, entry)[1] is False


@pytest.mark.parametrize("change", [_cut, os.unlink])
def test_what_is_not_whole_is_replaced_by_the_next_export(folder, change):
    entry = kept().entry("x")
    keep(folder, entry)
    change(entry / "original.onnx")
    keep(folder, entry, name="again")
    assert taken(folder, entry)[1] is True


def _refuse(*_):
    raise PermissionError(13, "Permission denied")


def test_an_entry_of_a_cache_that_is_read_only_is_taken(folder, monkeypatch):
    entry = kept().entry("x")
    keep(folder, entry)
    monkeypatch.setattr(os, "utime", _refuse)
    assert taken(folder, entry)[1] is True


def test_an_entry_that_may_not_be_read_is_exported_again(folder, monkeypatch):
    entry = kept().entry("x")
    keep(folder, entry)
    monkeypatch.setattr("compressor.pipeline.journal.shutil.copyfile", _refuse)
    assert taken(folder, entry)[1] is False


def test_an_entry_names_no_file_elsewhere(folder):
    (folder / "secret").write_bytes(b"a file")
    entry = kept().entry("x")
    keep(folder, entry)
    part = entry / "part.safetensors"
    part.write_bytes(part.read_bytes().replace(b"original.onnx", b"../../secrets"))
    assert taken(folder, entry)[1] is False


def test_all_that_an_export_follows_from_is_in_its_key(folder):
    state = torch.get_rng_state()
    prints = CONDITIONS.fingerprints
    found = [kept().entry("x"), kept(1).entry("x"), kept().entry("y"), kept(torch_threads=2).entry("x")]
    for change in ({"model": "2"}, {"samples": "3"}, {"code": {}}, {"versions": {}}, {"data": {"a": "0"}}):
        found.append(kept(fingerprints=prints.model_copy(update=change)).entry("x"))
    torch.rand(1)
    found.append(kept().entry("x"))
    torch.set_rng_state(state)
    random.random()
    found.append(kept().entry("x"))
    assert len(set(found)) == len(found)


def test_code_of_the_user_elsewhere_is_in_its_key(folder, monkeypatch):
    file, found = folder / "elsewhere_of_kept.py", [kept().entry("x")]
    for content in ("A = 1\n", "A = 2\n"):
        file.write_text(content)
        specification = importlib.util.spec_from_file_location("elsewhere_of_kept", file)
        monkeypatch.setitem(sys.modules, "elsewhere_of_kept", importlib.util.module_from_spec(specification))
        found.append(kept().entry("x"))
    monkeypatch.delitem(sys.modules, "elsewhere_of_kept")
    assert kept().entry("x") == found[0]
    assert len(set(found)) == 3


def test_the_one_that_was_used_longest_ago_goes_first(folder, monkeypatch):
    monkeypatch.setattr(kept_originals, "MOST_ENTRIES", 2)
    first, second, third = (kept().entry(word) for word in "abc")
    keep(folder, first, name="1")
    keep(folder, second, name="2")
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert taken(folder, first)[1] is True  # used again
    keep(folder, third, name="3")
    assert entries(folder) == sorted([first, third])


def test_what_is_too_large_is_not_kept(folder, monkeypatch):
    monkeypatch.setattr(kept_originals, "MOST_BYTES", 5)
    keep(folder, kept().entry("x"))
    assert entries(folder) == []


def test_a_cache_that_cannot_be_written_is_no_matter(folder):
    (folder / "cache").write_text("a file in the place of the folder")
    entry = kept().entry("x")
    keep(folder, entry)
    assert taken(folder, entry)[1] is False
