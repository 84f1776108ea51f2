"""Files are written whole or not at all, and only where a file is."""

import hashlib
import os

import pytest

from compressor.errors import OutputError
from compressor.files import sha256, write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("older")
    with pytest.raises(OutputError, match=r"cannot write .*missing/kept: No such file or directory"):
        write_whole(tmp_path / "missing" / "kept", b"newer")
    write_whole(tmp_path / "kept", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"newer"


def test_a_pipe_a_folder_and_a_device_are_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/full")
    for name, reason in (
        ("pipe", "a device, a pipe or another special file"),
        ("folder", "is a folder"),
        ("device", "is a link to /dev/full, outside of its folder"),
    ):
        with pytest.raises(OutputError, match=reason):
            write_whole(tmp_path / name, b"content")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "device").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "folder", "device"}


def test_a_link_is_followed_within_its_folder_and_nowhere_else(tmp_path):
    (tmp_path / "elsewhere").write_text("kept")
    inside = tmp_path / "out"
    inside.mkdir()
    (inside / "real").write_text("older")
    (inside / "link").symlink_to("real")
    (inside / "away").symlink_to(tmp_path / "elsewhere")
    write_whole(inside / "link", b"newer")
    assert (inside / "link").is_symlink()
    assert (inside / "real").read_bytes() == b"newer"
    with pytest.raises(OutputError, match="outside of its folder"):
        write_whole(inside / "away", b"content")
    assert (tmp_path / "elsewhere").read_text() == "kept"


def test_a_hash_is_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 4001
    (tmp_path / "weights.bin").write_bytes(content)
    assert sha256(tmp_path / "weights.bin") == hashlib.sha256(content).hexdigest()


def test_a_file_that_cannot_be_read_for_its_hash_is_named(tmp_path):
    for name, reason in (("gone", "No such file"), ("", "Is a directory")):
        with pytest.raises(OutputError, match=f"cannot be read: {reason}"):
            sha256(tmp_path / name)
