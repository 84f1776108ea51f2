"""What must be quick imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "numpy", "jinja2", "safetensors")
SLOW = ("torch", "onnx", "onnxruntime", "onnxscript")
"""Takes about a second each, or more."""
SCRIPT = """
import sys
from compressor.cli import execute
execute(sys.argv[1:])
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded_by(script, *arguments):
    """The packages that a script has loaded at its end in a process of its own, which has to end well."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("LOADED")[2].split()


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
    loaded = loaded_by(SCRIPT, *arguments)
    assert "compressor" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_help_needs_neither_pydantic_nor_rich():
    assert not {"pydantic", "rich", "yaml"} & set(loaded_by(SCRIPT, "--help"))


SAID = """
import sys
from compressor.cli import execute, output

def said(text):
    print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}))
    raise SystemExit

output._to_standard_error = said
execute(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "quickstart", "--task", __file__, "--out", "out"],
        ["export", "--task", __file__, "--out", "out"],
        ["inspect", "--task", __file__],
        ["sensitivity", "--task", __file__],
        ["search", "--task", __file__, "--out", "out", "--max-drop", "0.1"],
        ["init", __file__],
        ["probe", "--architectures", "gru,lstm"],
        ["probe", "--recipe", "aaren", "--task", __file__],
        ["bench", __file__],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_the_first_word_comes_before_pytorch(arguments):
    loaded = loaded_by(SAID, *arguments)
    assert "compressor" in loaded
    assert [name for name in SLOW if name in loaded] == []
