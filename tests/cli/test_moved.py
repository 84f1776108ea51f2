"""Commands of older versions say what they are called now."""

import pytest

from tests.cli.conftest import call


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        (["inspect", "--task", "task.py", "--sensitivity"], "inspect --sensitivity", "sensitivity"),
        (["inspect", "--lattice", "--task", "task.py"], "inspect --lattice", "draw lattice"),
        (["graphs", "draw", "random-graph"], "graphs draw", "draw graph"),
        (["graphs", "study", "--task", "task.py"], "graphs study", "study graphs"),
    ],
)
def test_an_old_command_is_refused_with_the_new_one(arguments, old, new):
    result = call(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"error: `compressor {old}` is now `compressor {new}`\nhint: `compressor {new} --help` shows its options\n"
    )
    assert call(*new.split(), "--help").code == 0
