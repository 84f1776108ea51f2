"""`compressor demo` says what is missing, and shows the address as a code that a camera reads."""

import re

from compressor.cli.demo import code
from compressor.runtimes import environments
from tests.cli.conftest import call


def test_without_the_runtime_or_a_run_it_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = call("demo", tmp_path)
    assert (result.code, "compressor runtimes install web" in result.err) == (2, True)
    made = environments.folder(environments.known("web"))
    made.mkdir(parents=True)
    (made / "installed.json").write_text("[]")
    result = call("demo", tmp_path)
    assert (result.code, result.err.count("hint: give the --out folder of a finished run")) == (2, 1)


def test_the_code_holds_the_address():
    drawn = code("http://192.168.178.31:54321/AbCdEfGhIjKlMnOp/")
    lines = drawn.splitlines()
    assert len(set(map(len, lines))) == 1
    assert re.fullmatch(r"[█▀▄ \n]+", drawn)
    assert 14 < len(lines) < 22
