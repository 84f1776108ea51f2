"""What is said before anything heavy is loaded."""

import pytest

from compressor.cli.arguments import announce


@pytest.mark.parametrize("name", ["", ":Mine"])
def test_a_task_is_announced_before_it_is_loaded(tmp_path, capsys, name):
    (tmp_path / "task.py").touch()
    announce(f"{tmp_path}/task.py{name}")
    assert capsys.readouterr().err == f"loading {tmp_path}/task.py{name}\n"


def test_a_task_that_is_not_there_is_left_to_its_error(tmp_path, capsys):
    announce(str(tmp_path / "task.py"))
    assert capsys.readouterr().err == ""
