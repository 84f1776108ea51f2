"""What must be quick imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "jinja2", "safetensors")
SCRIPT = """
import sys
from compressor.cli import execute
execute(sys.argv[1:])
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["validate", "quickstart"],
        ["validate", "nowhere.yaml"],
        ["recipes", "list"],
        ["methods", "show", "retrain"],
        ["run", "nowhere.yaml", "--task", "task.py", "--out", "out"],
        ["bench", "nowhere.onnx"],
        ["check", "nowhere.onnx", "--target", "nnapi"],
        ["study", "graphs", "--help"],
        ["sensitivity", "--task", "nowhere.py", "--ratios", "2"],
        ["draw", "--help"],
        ["probe", "--recipe", "nowhere.yaml", "--task", "task.py"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_for(arguments):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert "compressor" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_help_needs_neither_pydantic_nor_rich():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--help"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"pydantic", "rich", "yaml"} & set(done.stdout.rpartition("LOADED")[2].split())
