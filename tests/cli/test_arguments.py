"""What is said before anything heavy is loaded."""

import pytest

from compressor.cli.arguments import announce
from tests.cli.conftest import call


@pytest.mark.parametrize("name", ["", ":Mine"])
def test_a_task_is_announced_before_it_is_loaded(tmp_path, capsys, name):
    (tmp_path / "task.py").touch()
    announce(f"{tmp_path}/task.py{name}")
    assert capsys.readouterr().err == f"loading {tmp_path}/task.py{name}\n"


def test_a_task_that_is_not_there_is_left_to_its_error(tmp_path, capsys):
    announce(str(tmp_path / "task.py"))
    assert capsys.readouterr().err == ""


def test_a_folder_is_no_file_to_write_and_that_is_said_before_any_work(finished, tmp_path):
    for words in (
        ("check", finished[0] / "model.onnx", "--target", "nnapi", "--fix"),
        ("probe", "--architectures", "gru,lstm"),
    ):
        result = call(*words, "--out", tmp_path)
        assert (result.code, result.err) == (
            2,
            f"error: --out is the folder `{tmp_path}`, and a file is written\nhint: give the path of a file\n",
        )
    assert not list(tmp_path.iterdir())


def test_init_writes_into_a_folder(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\nNet = lambda: nn.Linear(3, 2)\n")
    for out in (tmp_path, tmp_path / "other.py"):
        result = call("init", f"{tmp_path / 'net.py'}:Net", "--example", "torch.randn(batch, 3)", "--out", out)
        assert result.code == 0, result.err
    assert {path.name for path in tmp_path.glob("*.*")} == {
        "net.py",
        "task.py",
        "recipe.yaml",
        "other.py",
        "other.yaml",
    }
