"""Samples that come with the package are whole: a copy alone is a task that runs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from compressor.errors import OutputError, UsageError
from compressor.starting.samples import SAMPLES, copy, find, library
from tests.cli.conftest import call

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_copy_alone_is_a_task_that_can_be_inspected(name, tmp_path):
    sample = find(name)
    target = copy(sample, tmp_path / "mine")
    command = [sys.executable, "-m", "compressor.cli", "inspect", "--task", sample.task, "--json"]
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"parameters"' in done.stdout


def test_the_wheel_takes_every_file_that_is_listed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        included = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for sample in SAMPLES.values():
        for name in sample.files:
            source = f"samples/{sample.name}/{name}"
            assert (ROOT / source).is_file()
            folder = source.rpartition("/")[0]
            assert included.get(source, included.get(folder)) in (f"compressor/{source}", f"compressor/{folder}")
    assert library() == ROOT / "samples"


def test_a_copy_that_is_there_stays_unless_forced(tmp_path):
    target = copy(find("reber"), tmp_path)
    (target / "task.py").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        copy(find("reber"), tmp_path)
    assert (target / "task.py").read_text() == "mine"
    copy(find("reber"), tmp_path, force=True)
    assert (target / "task.py").read_bytes() == (library() / "reber" / "task.py").read_bytes()


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no sample `rebr` is shipped") as caught:
        find("rebr")
    assert caught.value.hint == "one of japanese_vowels, reber"


def test_the_commands_list_and_copy(tmp_path):
    assert [line.split()[0] for line in call("samples", "list").out.splitlines()[2:]] == list(SAMPLES)
    assert "nothing more" in call("samples", "list").out
    result = call("samples", "copy", "reber", tmp_path)
    assert (result.code, result.out) == (0, "")
    assert f"copied to {tmp_path}/reber\n" in result.err
    assert f"--task {tmp_path}/reber/task.py:GRU" in result.err
