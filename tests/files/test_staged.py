"""A folder is the older set of files or the newer one, wherever the process is killed between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.errors import OutputError
from compressor.files import staged
from compressor.files.staged import COMMIT_FILE, REPORT_FILE, UNFINISHED

OLDER = {REPORT_FILE: "older", "model": "older", "only": "older", "notes": "of the user"}
NEWER = {REPORT_FILE: "newer", "model": "newer", "more": "newer"}
KILLED = """
import os, sys
from pathlib import Path
from compressor.files import staged
left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event in {"os.rename", "os.remove", "os.rmdir"}:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
with staged.locked(Path(sys.argv[1])):
    sys.addaudithook(hook)
    staged.commit(Path(sys.argv[1]), ["report.json", "model", "more"], remove=["report.json", "model", "only"])
"""


def fill(folder, older=OLDER):
    unfinished = folder / UNFINISHED
    (unfinished / "journal").mkdir(parents=True)
    for name, text in older.items():
        (folder / name).write_text(text)
    for name, text in {**NEWER, "journal/part": "tensors", "temporary": "of an exporter"}.items():
        (unfinished / name).write_text(text)
    return folder


def held(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("older", [OLDER, {}], ids=["over an older run", "a new folder"])
def test_a_commit_that_is_killed_before_any_call_of_the_system_leaves_one_of_both(tmp_path, older):
    rest = {"notes": "of the user"} if older else {}
    seen = []
    for calls in range(40):
        folder = fill(tmp_path / str(calls), older)
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(calls)], check=False)
        committed = (folder / UNFINISHED / COMMIT_FILE).exists() or not (folder / UNFINISHED / "model").exists()
        staged.settle(folder)
        assert held(folder) == ({**NEWER, **rest} if committed else older)
        if not committed:
            assert held(folder / UNFINISHED) == {**NEWER, "temporary": "of an exporter", **_halves(folder)}
        seen.append(committed)
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert seen.count(False) == 1  # the rename of the commit's own file
    assert seen.count(True) > 8


def _halves(folder):
    """The commit's own file before it has its name."""
    return {name: text for name, text in held(folder / UNFINISHED).items() if name.startswith(f".{COMMIT_FILE}")}


def test_nothing_is_touched_if_a_folder_has_the_name_of_a_file(tmp_path):
    folder = fill(tmp_path)
    (folder / "more").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        staged.commit(folder, NEWER)
    assert held(folder) == OLDER


def test_a_commit_that_was_tampered_with_reaches_nothing_outside(tmp_path):
    folder = fill(tmp_path / "run")
    (tmp_path / "kept").write_text("kept")
    names = ["..", "../kept", str(tmp_path / "kept"), "", ".", 7, UNFINISHED, None, ["kept"]]
    (folder / UNFINISHED / COMMIT_FILE).write_text(json.dumps({"files": names, "remove": names}))
    staged.settle(folder)
    assert (tmp_path / "kept").read_text() == "kept"
    for text in ("[]", "{", "[" * 5000, '{"files": 7, "remove": {"a": 1}}'):
        fill(tmp_path / "others" / str(len(text)))
        (tmp_path / "others" / str(len(text)) / UNFINISHED / COMMIT_FILE).write_text(text)
        staged.settle(tmp_path / "others" / str(len(text)))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / UNFINISHED).symlink_to(tmp_path / "others" / "2" / UNFINISHED)
    staged.settle(tmp_path / "linked")
    assert held(tmp_path / "linked") == {}


def test_the_lock_is_refused_at_once_and_ends_with_its_process_and_not_with_a_child_of_it(tmp_path):
    script = (
        "import os, sys, time; from pathlib import Path; from compressor.files import staged\n"
        "with staged.locked(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(600)\n"
        "    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(OutputError, match="another run is at work in"), staged.locked(tmp_path):
            pass
        process.kill()
        process.wait()
        with staged.locked(tmp_path):
            pass
        os.kill(child, 0)  # it lives
    finally:
        process.kill()
        os.kill(child, 9)
        process.wait()
        process.stdout.close()


def test_a_folder_that_another_run_removed_while_this_one_waited_is_locked_anew(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    flock, seen = staged.fcntl.flock, []

    def removed_first(handle, operation):
        if not seen:
            folder.rmdir()
        seen.append(handle)
        flock(handle, operation)

    monkeypatch.setattr(staged.fcntl, "flock", removed_first)
    with staged.locked(folder):
        assert len(seen) == 2
        assert Path(folder).is_dir()
