"""`check`: the table, the facts, the changed file."""

import json

import onnx
import pytest

from compressor.cli.check import taken_of
from tests.cli.conftest import call


@pytest.fixture(scope="module")
def checked(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("check") / "fixed.onnx"
    arguments = (finished[0] / "model.onnx", "--target", "nnapi", "--fix", "--out", out, "--shape", "time=5", "--json")
    result = call("check", *arguments)
    return out, result, json.loads(result.out)


def test_what_is_not_taken_is_shown_with_its_reason_and_remedy(finished):
    result = call("check", finished[0] / "model.onnx", "--target", "coreml")
    assert result.code == 1
    assert result.out.startswith("Core ML (MLProgram) through ONNX Runtime takes none of ")
    row = next(line for line in result.out.splitlines() if line.startswith("GRU"))
    assert "the operator is not in the table" in row
    assert "plain operations for a fixed length: --fix" in row
    assert "source: onnxruntime.tools.mobile_helpers/coreml_supported_mlprogram_ops.md of onnxruntime" in result.err


def test_a_changed_file_is_taken_whole_and_has_no_open_axis(checked):
    out, result, facts = checked
    assert result.code == 0
    assert facts["taken"] == 0
    assert facts["fix"]["taken"] == facts["fix"]["nodes"] > facts["nodes"]
    assert facts["fix"]["partitions"] == 1
    assert facts["fix"]["largest_difference"] < 1e-5
    shape = onnx.load(out).graph.input[0].type.tensor_type.shape
    assert [dimension.dim_value for dimension in shape.dim] == [1, 5, 3]


def test_onnx_runtimes_cpu_takes_everything(finished):
    result = call("check", finished[0] / "model.onnx", "--target", "ort-cpu", "--json")
    facts = json.loads(result.out)
    assert (result.code, facts["not_taken"]) == (0, [])
    assert facts["taken"] == facts["nodes"] == len(onnx.load(finished[0] / "model.onnx").graph.node)


def test_nothing_is_written_where_nothing_is_to_change(finished, tmp_path):
    result = call("check", finished[0] / "model.onnx", "--target", "mnn", "--fix", "--out", tmp_path / "fixed.onnx")
    assert result.code == 0
    assert "nothing to change" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--target", "tpu"), "unknown target `tpu`"),
        (("--target", "nnapi", "--out", "x.onnx"), "--out and --shape say how a file is changed"),
        (("--target", "nnapi", "--fix", "--shape", "time"), "--shape takes AXIS=SIZE, not `time`"),
        (("--target", "nnapi", "--fix", "--shape", "frames=3"), "`frames` is not an open axis of the file"),
    ],
)
def test_what_cannot_be_meant_is_refused(finished, arguments, message):
    result = call("check", finished[0] / "model.onnx", *arguments)
    assert result.code == 2
    assert result.err.startswith(f"error: {message}")


def test_a_file_is_not_written_over_itself(finished):
    path = finished[0] / "model.onnx"
    result = call("check", path, "--target", "nnapi", "--fix", "--out", path)
    assert (result.code, "is the file itself" in result.err) == (2, True)


def test_a_missing_file():
    result = call("check", "nowhere.onnx", "--target", "nnapi")
    assert (result.code, result.err) == (
        2,
        "error: there is no file `nowhere.onnx`\nhint: give an exported .onnx file\n",
    )


@pytest.mark.parametrize(
    ("taken", "nodes", "partitions", "said"),
    [
        (0, 6, 0, "none of 6 nodes"),
        (0, 0, 0, "none of 0 nodes"),
        (1, 1, 1, "the only node"),
        (6, 6, 1, "all 6 nodes in 1 partition"),
        (4, 6, 2, "4 of 6 nodes in 2 partitions"),
        (1, 6, 1, "1 of 6 nodes"),
    ],
)
def test_how_much_is_taken_is_said_as_a_person_does(taken, nodes, partitions, said):
    assert taken_of({"taken": taken, "nodes": nodes, "partitions": partitions}) == said


def test_neither_file_runs_in_this_process(finished, tmp_path, monkeypatch):
    """A file that ONNX Runtime loads may still end the process that runs it."""

    def ended(*_):
        raise AssertionError("run in the process of the command")

    monkeypatch.setattr("compressor.runtimes.onnx_runtime.OnnxFile.run", ended)
    out = tmp_path / "fixed.onnx"
    result = call(
        "check", finished[0] / "model.onnx", "--target", "nnapi", "--fix", "--out", out, "--shape", "time=5", "--json"
    )
    assert json.loads(result.out)["fix"]["largest_difference"] < 1e-5
    assert out.is_file()
