"""A run's folder never looks finished before it is, and a rehearsal does not replace a full run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import recipe
from compressor.errors import OutputError
from compressor.pipeline.folder import REPORT_FILE, RunFolder

RECIPE = recipe.load("int8")


def write(out, *, quick, force=False):
    with RunFolder(out, RECIPE, quick=quick, force=force) as folder:
        folder.write(
            REPORT_FILE,
            json.dumps({"recipe_sha256": RECIPE.sha256(), "quick": quick, "files": [REPORT_FILE, "a", "z"]}),
        )
        for name in ("a", "z"):
            folder.write(name, str(quick))
        folder.commit()


def test_the_report_is_put_in_place_last_and_an_older_one_goes_first(tmp_path, monkeypatch):
    write(tmp_path / "out", quick=True)
    seen, replace, unlink = [], Path.replace, Path.unlink
    monkeypatch.setattr(Path, "replace", lambda path, to: (seen.append(path.name), replace(path, to))[1])
    monkeypatch.setattr(
        Path, "unlink", lambda path, missing_ok=False: (seen.append(f"no {path.name}"), unlink(path, missing_ok))[1]
    )
    write(tmp_path / "out", quick=True)
    assert (seen[0], seen[-1], set(seen[1:-1])) == (f"no {REPORT_FILE}", REPORT_FILE, {"a", "z"})


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


def test_what_a_killed_run_had_staged_goes_and_what_a_living_one_has_stays(tmp_path):
    out = tmp_path / "out"
    script = (
        "import sys, time; from pathlib import Path; from compressor import recipe; "
        "from compressor.pipeline.folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1]), recipe.load('int8'), quick=True, force=True) as folder:\n"
        "    folder.write('half', 'made'); print(folder.staging, flush=True); time.sleep(600)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        dead, living = (Path(process.stdout.readline().strip()) for process in running)
        assert (dead / "half").exists()
        running[0].kill()
        running[0].wait()
        write(out, quick=True, force=True)
        assert not dead.exists()
        assert (living / "half").exists()
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdout.close()
