"""Exit codes, streams and error form of the entry point."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from compressor import __version__
from compressor.cli import main
from tests.cli.conftest import call

ROOT = Path(__file__).parents[2]
LONG = "x" * 300
DEEP = "/".join(["d" * 100] * 60)


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
    assert (result.code, result.err.splitlines()[1:]) == (130, ["interrupted"])


@pytest.fixture
def faulty(monkeypatch, tmp_path):
    """Lets a command meet an error that no command expects; full tracebacks go into `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def meet(error):
        def broken(*_, **__):
            raise error

        monkeypatch.setattr(json, "dumps", broken)

    return meet


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (RuntimeError("broken"), ["recipes", "schema"]),
        (EOFError("broken"), ["methods", "list", "--json"]),
        (RecursionError("broken"), ["validate", "quickstart", "--json"]),
    ],
)
def test_a_fault_of_the_tool_is_a_short_report_and_a_file_with_the_traceback(faulty, error, command, tmp_path):
    faulty(error)
    result = call(*command)
    (saved,) = tmp_path.glob("compressor-fault-*.txt")
    kind = type(error).__name__
    assert (result.code, result.out) == (70, "")
    begin = f"error: compressor failed: {kind}: broken\ncommand: compressor {' '.join(command)}\n"
    assert result.err.lstrip("\n").startswith(begin)  # typer ends the line of a prompt before an EOFError
    assert f"versions: compressor {__version__}, python " in result.err
    assert "in broken\n    raise error\n" in result.err
    assert result.err.endswith(
        f"full traceback: {saved}\nhint: this is a bug in compressor, not in your input; please report it with this "
        "text and file\n"
    )
    assert "Traceback" not in result.err
    assert "Traceback (most recent call last):" in saved.read_text()
    assert "compressor/cli/" in saved.read_text()


def test_a_fault_with_no_place_for_a_file_shows_its_traceback(faulty, monkeypatch, tmp_path):
    faulty(ValueError("broken"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    result = call("recipes", "schema")
    assert result.code == 70
    assert "Traceback (most recent call last):" in result.err


def test_too_little_memory_is_not_a_bug(faulty):
    faulty(MemoryError())
    result = call("recipes", "schema")
    assert result.code == 2
    assert result.err.startswith("error: the memory of this machine is used up: MemoryError\nhint: use smaller batches")


def test_a_termination_is_cleaned_up_and_has_its_own_code(files, capsys):
    (files / "terminated.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    while True: pass\n"
        "finally:\n    print('cleaned')\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "--task", str(files / "terminated.py")])
    assert stop.value.code == 143
    printed = capsys.readouterr()
    assert (printed.out, printed.err.splitlines()[1:]) == ("cleaned\n", ["terminated"])
    assert signal.getsignal(signal.SIGTERM) is before


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["validate", LONG],
        ["validate", f"{LONG}.yaml"],
        ["report", LONG],
        ["report", DEEP],
        ["bench", LONG],
        ["check", LONG, "--target", "nnapi"],
        ["inspect", "--task", f"{LONG}.py"],
        ["init", f"{LONG}.py"],
        ["recipes", "copy", "quickstart", LONG],
        ["run", "quickstart", "--task", "samples/japanese_vowels/task.py", "--out", LONG],
        ["run", "quickstart", "--task", f"{DEEP}.py", "--out", "out"],
        ["export", "--task", f"{LONG}.py", "--out", LONG],
        ["study", "graphs", "--task", "samples/row_digits/task.py", "--out", LONG],
    ],
    ids=lambda words: " ".join(words)[:20],
)
def test_a_name_that_is_too_long_is_an_error_and_no_bug(arguments):
    result = call(*arguments)
    assert result.code == 2
    assert "File name too long" in result.err
    assert "\nhint: " in result.err


@pytest.mark.parametrize("command", [["report"], ["validate"], ["recipes", "copy", "quickstart"]])
def test_an_argument_that_is_no_text_is_refused_by_its_number(command):
    result = call(*command, "caf\udce9")
    assert result.code == 2
    assert result.err.startswith(f"error: argument {len(command) + 1} is not UTF-8 text: `caf\\udce9`\nhint: ")


def test_the_package_has_the_version_of_the_distribution():
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == __version__


def test_at_its_end_a_command_does_not_look_for_cycles():
    """Frozen objects are those that Python's last collection leaves alone; what is registered first runs last."""
    code = (
        "import atexit, gc, sys; atexit.register(lambda: print('frozen', gc.get_freeze_count()));"
        "from compressor.cli import main; main(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.rpartition("frozen")[2]) > 10_000
