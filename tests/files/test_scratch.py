"""Temporary folders of a process that was killed are removed by the next one."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys

from compressor.files.scratch import Scratch

KILLED = """
import os, pathlib, signal, sys
from compressor.files.scratch import Scratch
folder = Scratch(pathlib.Path(sys.argv[1]), "of-")
(folder.path / "weights").write_bytes(b"1")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_folder_and_nothing_else(tmp_path):
    for name in ("of-a user", "other"):
        (tmp_path / name).mkdir()
    alive = Scratch(tmp_path, "of-")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    [left] = {path for path in tmp_path.iterdir() if (path / "weights").exists()}
    new = Scratch(tmp_path, "of-")
    assert not left.exists()
    assert alive.path.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"of-a user", "other", alive.path.name, new.path.name}


def test_a_folder_is_gone_with_the_last_one_who_holds_it_or_when_it_is_closed(tmp_path):
    folder, closed = Scratch(tmp_path), Scratch(tmp_path)
    closed.close()
    del folder
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_another_user_left_keeps_no_other_from_being_removed(tmp_path, monkeypatch):
    left = [tmp_path / "of-1", tmp_path / "of-2"]
    for folder in left:
        folder.mkdir()
        (folder / ".scratch").touch()
    opened, real = [], os.open

    def refused_at_first(path, *arguments, **more):
        if path in left:
            opened.append(path)
            if len(opened) == 1:
                raise PermissionError(path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refused_at_first)
    Scratch(tmp_path, "of-")
    assert {folder: folder.exists() for folder in opened} == {opened[0]: True, opened[1]: False}
