"""A run's folder never looks finished before it is, and a rehearsal does not replace a full run."""

from __future__ import annotations

import json

import pytest
import torch

from compressor import recipe
from compressor.errors import MethodError, OutputError
from compressor.files.staged import REPORT_FILE, UNFINISHED
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.parts import Kept

RECIPE = recipe.load("int8")


def opened(out, *, quick=True, force=False):
    return RunFolder(out, RECIPE, torch.device("cpu"), quick=quick, force=force)


def write(out, *, quick, force=False, names=("a", "z")):
    with opened(out, quick=quick, force=force) as folder:
        files = [REPORT_FILE, *names]
        folder.write(
            REPORT_FILE, json.dumps({"recipe_sha256": RECIPE.sha256(), "quick": quick, "files": files}),
        )  # fmt: skip
        for name in names:
            folder.write(name, str(quick))
        folder.commit(files)


def test_files_of_an_older_run_go_and_those_of_the_user_stay(tmp_path):
    out = tmp_path / "out"
    write(out, quick=True, names=("a", "b"))
    (out / "notes").write_text("of the user")
    write(out, quick=True, names=("b", "c"))
    assert sorted(path.name for path in out.iterdir()) == ["b", "c", "notes", REPORT_FILE]


def test_a_rehearsal_does_not_replace_a_full_run_unless_forced(tmp_path):
    out = tmp_path / "out"
    write(out, quick=True)
    write(out, quick=False)  # a full run replaces a rehearsal
    with pytest.raises(OutputError, match="holds a full run, which a rehearsal would replace"):
        write(out, quick=True)
    assert (out / "a").read_text() == "False"
    write(out, quick=True, force=True)
    assert (out / "a").read_text() == "True"


def test_names_in_a_report_that_was_tampered_with_delete_nothing(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "kept"
    write(out, quick=True)
    outside.write_text("kept")
    names = ["", "..", ".", "../kept", str(outside), 7]
    (out / REPORT_FILE).write_text(json.dumps({"recipe_sha256": RECIPE.sha256(), "quick": True, "files": names}))
    write(out, quick=True)
    assert outside.read_text() == "kept"
    assert json.loads((out / REPORT_FILE).read_text())["files"] == [REPORT_FILE, "a", "z"]


def test_a_second_run_into_the_same_folder_is_refused_and_disturbs_nothing(tmp_path):
    out = tmp_path / "out"
    with opened(out) as first:
        first.write("half", "made")
        with pytest.raises(OutputError, match="another run is at work in"), opened(out, force=True):
            pass
        assert (first.staging / "half").read_text() == "made"
    write(out, quick=True)


def ended(folder, part, error):
    with folder:
        folder.journal.is_own = True
        folder.journal.save(part, Kept({"a": 1}))
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left"), MethodError("broken")])
def test_what_is_finished_stays_when_a_run_ends_early(tmp_path, error):
    out = tmp_path / "out"
    folder = opened(out)
    with pytest.raises((type(error), OutputError)) as caught:
        ended(folder, "step 1 (retrain)", error)
    assert folder.journal.names() == ["step 1 (retrain)"]
    if isinstance(error, MethodError):
        assert caught.value.hint.startswith(f"what is finished is kept in {out / UNFINISHED}")


def test_a_task_that_is_refused_before_the_first_step_leaves_nothing(tmp_path):
    with pytest.raises(MethodError):
        ended(opened(tmp_path / "out"), "metric of the original", MethodError("no such layer"))
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_place_of_what_is_unfinished_is_refused(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (other / "kept").write_text("kept")
    (out / UNFINISHED).symlink_to(other)
    with pytest.raises(OutputError, match="is a link"), opened(out):
        pass
    assert (other / "kept").read_text() == "kept"
