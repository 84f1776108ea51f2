"""Exit codes, streams and error form of the entry point."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import __version__
from tests.cli.conftest import call

ROOT = Path(__file__).parents[2]


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "compressor.cli", *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, **options
    )


def test_help_names_every_command():
    result = call("--help")
    assert result.code == 0
    for command in (
        "run",
        "validate",
        "inspect",
        "sensitivity",
        "draw",
        "recipes",
        "methods",
        "bench",
        "report",
        "doctor",
    ):
        assert f"\n  {command} " in result.out


@pytest.mark.parametrize(
    "command",
    ["run", "validate", "inspect", "sensitivity", "draw lattice", "study graphs", "bench", "report", "doctor"],
)
def test_every_command_has_help(command):
    assert call(*command.split(), "--help").out.startswith(f"Usage: compressor {command} ")


def test_version():
    assert call("--version").out == f"compressor {__version__}\n"


def test_no_command_is_a_usage_error_with_the_help_on_standard_error():
    result = call()
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Usage: compressor ")


@pytest.mark.parametrize(
    ("arguments", "message", "command"),
    [
        (["runn"], "no such command 'runn'. Did you mean 'run'?", "compressor"),
        (["draw", "latice"], "no such command 'latice'. Did you mean 'lattice'?", "compressor draw"),
        (["recipes", "liste"], "no such command 'liste'. Did you mean 'list'?", "compressor recipes"),
        (["doctor", "extra"], "got unexpected extra argument(s) (extra)", "compressor doctor"),
    ],
)
def test_a_usage_error_has_the_form_of_every_error(arguments, message, command):
    result = call(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == f"error: {message}\nhint: `{command} --help` shows how it is used\n"


def test_an_unknown_option_points_to_the_help_of_its_command():
    result = call("run", "quickstart", "--foo")
    assert result.code == 2
    assert result.err.startswith("error: no such option: --foo")
    assert result.err.endswith("hint: `compressor run --help` shows how it is used\n")


def test_an_interruption_is_one_line(files):
    (files / "stopped.py").write_text("raise KeyboardInterrupt\n")
    result = call("inspect", "--task", files / "stopped.py")
    assert (result.code, result.err) == (130, "interrupted\n")


def test_a_bug_of_ours_shows_its_traceback_and_is_no_other_exit_code(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("broken")

    monkeypatch.setattr(json, "dumps", broken)
    result = call("recipes", "schema")
    assert result.code == 70
    assert "RuntimeError: broken" in result.err
    assert result.err.endswith(
        "This is a bug in compressor, not in your input; please report it with the text above.\n"
    )


def test_a_reader_that_has_gone_is_no_error():
    with start("recipes", "schema", stdout=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_is_an_error():
    with Path("/dev/full").open("w") as full, start("recipes", "schema", stdout=full) as process:
        assert process.stderr.read() == "error: cannot write to standard output: No space left on device\n"
    assert process.returncode == 2


def test_characters_that_the_terminal_lacks_are_replaced(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with start("validate", "caf\u00e9", stdout=subprocess.DEVNULL, env=environment) as process:
        assert process.stderr.read().startswith("error: unknown recipe `caf?`\n")
    assert process.returncode == 2
