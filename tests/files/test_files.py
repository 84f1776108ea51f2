"""Files are written whole or not at all, and only where a file is."""

import hashlib
import os

import pytest

from compressor.errors import OutputError, ReportError
from compressor.files import json_object, read_text, sha256, write_whole


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
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("gone", "No such file"), ("", "it is a folder"), ("pipe", "it is a device, a pipe")):
        with pytest.raises(OutputError, match=f"cannot be read: {reason}"):
            sha256(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "there is no file"),
        ("folder", "is a folder, not a file"),
        ("pipe", "is a device, a pipe or another special file, not a file"),
        ("device", "is a device, a pipe or another special file, not a file"),
        ("long", "is longer than 0 KiB"),
        ("bytes", r"is not UTF-8 text \(byte 0xff\)"),
        ("n" * 300, "cannot read .*File name too long"),
        ("/".join(["d" * 100] * 60), "cannot read .*File name too long"),
    ],
)
def test_what_is_no_text_file_is_refused_with_the_kind_of_error_asked_for_and_never_waited_for(tmp_path, name, said):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "long").write_text("x" * 101)
    (tmp_path / "bytes").write_bytes(b"a\n\xff")
    with pytest.raises(ReportError, match=said) as refused:
        read_text(tmp_path / name, ReportError, most=100, hint="do this")
    assert refused.value.hint == "do this"


def test_a_text_is_read_without_its_byte_order_mark(tmp_path):
    (tmp_path / "text").write_bytes("\ufeffé".encode())
    assert read_text(tmp_path / "text", ReportError) == "é"


@pytest.mark.parametrize("text", ["", "no", "7", "[]", "null", "[" * 10**5, '{"a":' * 10**5, '{"a": 1} x'])
def test_what_is_no_object_of_json_is_none(text):
    assert json_object(text) is None
    assert json_object('{"a": 1}') == {"a": 1}
