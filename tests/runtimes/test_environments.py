"""Environments of runtimes: made by pip from what is listed, found again, gone where they do not work."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from compressor.cli.runtimes import examine
from compressor.errors import ExportError, OutputError, UsageError
from compressor.runtimes import environments
from tests.cli.conftest import call

WHEEL = """Wheel-Version: 1.0
Generator: test
Root-Is-Purelib: true
Tag: py3-none-any
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A runtime that is a wheel in a folder, and a user's cache folder; nothing is fetched."""
    name = "tiny_runtime-1.0"
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_runtime.py", "VALUE = 7\n")
        wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-runtime\nVersion: 1.0\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", WHEEL)
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    runtime = environments.Runtime("tiny", "Tiny", ("tiny_runtime",), ("tiny-runtime==1.0",), "tests")
    monkeypatch.setitem(environments.RUNTIMES, "tiny", runtime)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return runtime


def test_a_missing_runtime_is_an_error_that_names_the_command_and_the_extra(tiny):
    with pytest.raises(ExportError, match="Tiny is not installed") as caught:
        environments.need("tiny")
    assert "`compressor runtimes install tiny`" in caught.value.hint
    assert "edge-compressor[tiny]" in caught.value.hint


def test_an_environment_of_its_own_is_made_found_and_listed(tiny):
    result = call("runtimes", "install", "tiny")
    assert (result.code, "tiny: tiny-runtime 1.0" in result.err) == (0, True)
    found = environments.need("tiny")
    assert found.own
    assert found.python.is_relative_to(environments.folder(tiny))
    assert environments.versions(found) == "tiny-runtime 1.0"


def test_an_installation_that_fails_leaves_nothing_and_shows_pips_words(tiny, monkeypatch):
    monkeypatch.setitem(
        environments.RUNTIMES,
        "tiny",
        environments.Runtime("tiny", "Tiny", ("tiny_runtime",), ("tiny-runtime==2.0",), "tests"),
    )
    with pytest.raises(ExportError, match="the installation of Tiny failed") as caught:
        environments.install("tiny")
    assert "tiny-runtime==2.0" in caught.value.message
    assert environments.locate("tiny") is None


def test_the_list_shows_what_is_there_and_what_is_not(tiny):
    rows = {row["name"]: row for row in json.loads(call("runtimes", "list", "--json").out)}
    assert rows["onnxruntime"]["state"] == "ok"
    assert rows["tiny"] | {"title": "", "purpose": ""} == {
        "name": "tiny", "title": "", "purpose": "", "versions": "", "state": "not installed",
        "where": "compressor runtimes install tiny",
    }  # fmt: skip


def test_c_is_as_good_as_this_machines_compiler(tmp_path, monkeypatch):
    compiler = tmp_path / "mycc"
    compiler.write_text("#!/bin/sh\necho mycc 3.5\necho more\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert [examine("c")[name] for name in ("state", "versions")] == ["ok", "mycc 3.5"]
    monkeypatch.setenv("CC", str(tmp_path / "gone"))
    assert examine("c")["state"] == "broken"
    assert "there is no C compiler" in examine("c")["where"]


def test_what_comes_with_the_package_or_does_not_exist_is_not_installed():
    with pytest.raises(UsageError, match="comes with this package"):
        environments.install("onnxruntime")
    with pytest.raises(UsageError, match="unknown runtime `nothing`"):
        environments.install("nothing")


HANGING = """
import sys
from compressor.cli import main
from compressor.runtimes import installing
installing.installer = lambda python: [sys.executable, "-c", sys.argv[1]]
main(["runtimes", "install", "mnn"])
"""
PIP = """
import os, subprocess, sys, time
late = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({file!r}, "w").write(f"{{os.getpid()}} {{late.pid}} ")
time.sleep(600)
"""


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_terminated_installation_ends_its_children_and_two_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "children"
    script = PIP.format(file=str(file))
    process = subprocess.Popen([sys.executable, "-c", HANGING, script], stderr=subprocess.PIPE, text=True)
    while not file.exists() or not file.read_text().endswith(" "):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    children = [int(word) for word in file.read_text().split()]
    assert all(map(alive, children))
    with pytest.raises(OutputError, match="another installation is at work in"):
        environments.install("mnn")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert (process.returncode, said.splitlines()[-1]) == (143, "terminated")
    for child in children:
        deadline = time.monotonic() + 30
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(child)
    assert environments.locate("mnn") is None or not environments.folder(environments.known("mnn")).exists()
