"""Programs that run an exported file: complete in every language, also for names and states that are awkward."""

import ast
import shutil
import subprocess

import numpy as np
import pytest

from compressor.render.programs import LANGUAGES, UNTRIED, File, example_name, programs, unknown_type
from compressor.report import StateInfo, StreamInfo, StreamInput, StreamOutput, TensorInfo
from tests.pipeline import compiled
from tests.runtimes import headers, kotlin

AWKWARD = 'x"\\$y\n'


def whole(name="x"):
    return File("model.onnx", [TensorInfo(name=name, dtype="float32", shape=("batch", "time", 7))],
                [TensorInfo(name="y", dtype="float32", shape=("batch", 3))])  # fmt: skip


def stepping():
    states = (
        StateInfo(name="h", next_name="h.next", dtype="float32", shape=(1, 2), initial=(0.5, -1.0)),
        StateInfo(name="keys", next_name="keys.next", dtype="float32", shape=(1, "past", 4), growing_axis=1),
        StateInfo(name="count", next_name="count.next", dtype="int64", shape=(1,), initial=3.0),
    )
    info = StreamInfo(
        chunk=2,
        inputs=(StreamInput(name="x", batch_axis=0, time_axis=1),),
        outputs=(StreamOutput(name="y", batch_axis=0, time_axis=1),),
        states=states,
    )
    carried = [TensorInfo(name=state.name, dtype=state.dtype, shape=state.shape) for state in states]
    following = [TensorInfo(name=state.next_name, dtype=state.dtype, shape=state.shape) for state in states]
    x, y = (TensorInfo(name=name, dtype="float32", shape=(1, 2, 7)) for name in "xy")
    return File("model.step.onnx", [x, *carried], [y, *following], info)


FILES = [whole(), whole(AWKWARD), stepping()]


@pytest.mark.parametrize("file", FILES)
def test_there_is_a_program_in_every_language_and_those_not_compiled_say_so(file):
    texts = programs(file)
    assert list(texts) == [f"{file.stem}.{ending}" for ending in LANGUAGES]
    untried = {
        name.rpartition(".")[2] for name, text in texts.items() if "Not compiled by the tool that wrote it" in text
    }
    assert untried == set(UNTRIED)
    assert all(max(map(len, text.splitlines())) < 200 and text.endswith("}\n" if name[-2:] != "py" else "\n")
               for name, text in texts.items())  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_the_python_program_is_python_and_names_every_input(file):
    tree = ast.parse(programs(file)[f"{file.stem}.py"])
    literals = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {item.name for item in file.outputs} <= literals
    assert {state.name for state in file.states} <= literals
    assert example_name(file) in literals


@pytest.mark.parametrize("file", FILES)
def test_the_javascript_program_is_javascript(file, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("no node")
    path = tmp_path / "program.mjs"
    path.write_text(programs(file)[f"{file.stem}.mjs"])
    checked = subprocess.run(["node", "--check", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.skipif(None in (compiled.CXX, headers.find()), reason="needs `python -m tests.runtimes.headers`")
@pytest.mark.parametrize("file", FILES)
def test_the_cpp_program_compiles_without_a_warning(file, tmp_path):
    (tmp_path / "program.cpp").write_text(programs(file)[f"{file.stem}.cpp"])
    assert compiled.compiled(tmp_path / "program.cpp", headers.find()).is_file()


@pytest.mark.slow
@pytest.mark.skipif(kotlin.find() is None, reason="needs Java and `python -m tests.runtimes.kotlin`")
def test_the_kotlin_programs_compile_without_a_warning(tmp_path):
    sources = []
    for file in (whole(AWKWARD), stepping()):
        sources.append(tmp_path / f"{file.stem}.kt")
        sources[-1].write_text(programs(file)[f"{file.stem}.kt"])
    assert kotlin.compiled(sources, tmp_path) == ["Model", "Stream"]


def test_states_begin_as_the_file_says_and_follow_the_next_outputs():
    space = {"__file__": "/tmp/use/model.step.py", "__name__": "program"}
    exec(compile(programs(stepping())["model.step.py"], "model.step.py", "exec"), space)
    stream = space["Stream"].__new__(space["Stream"])
    stream.reset(batch=2)
    np.testing.assert_array_equal(stream.states["h"], np.array([[0.5, -1.0]] * 2, np.float32))
    assert (stream.states["keys"].shape, stream.states["keys"].dtype) == ((2, 0, 4), np.float32)
    np.testing.assert_array_equal(stream.states["count"], np.array([3, 3], np.int64))

    class Session:
        def run(self, outputs, feed):
            assert outputs == ["y", "h.next", "keys.next", "count.next"]
            assert list(feed) == ["x", "h", "keys", "count"]
            return ["the output", "h1", "keys1", "count1"]

    stream.session = Session()
    assert stream.step({"x": 0}) == {"y": "the output"}
    assert stream.states == {"h": "h1", "keys": "keys1", "count": "count1"}


def test_a_type_that_no_program_knows_is_named():
    odd = TensorInfo(name="x", dtype="float16", shape=(1,))
    assert unknown_type(File("m.onnx", [odd], [])) == "float16"
    assert unknown_type(whole()) is None
