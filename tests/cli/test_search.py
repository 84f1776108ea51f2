"""`compressor search`: what is said before anything is loaded."""

import pytest

from compressor.cli import execute


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "there is no goal"),
        (["--max-bytes", "600XB"], "--> --max-bytes 600XB"),
        (["--max-drop", "0.01", "--time", "5min", "--hours", "1"], "--time and --hours are the same"),
        (["--max-drop", "0.01", "--use", "unit"], "did you mean `units`?"),
        (["--max-drop", "0.01", "--format", "onx"], "did you mean `onnx`?"),
        (["missing.yaml"], "there is no file `missing.yaml`"),
    ],
)
def test_goals_that_cannot_be_meant_end_with_2_and_their_place(options, said, capsys, tmp_path):
    code = execute(["search", "--task", "task.py", "--out", str(tmp_path / "out"), *options])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
