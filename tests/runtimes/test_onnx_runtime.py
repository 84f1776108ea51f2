import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from compressor.errors import ExportError, UsageError
from compressor.report import TensorInfo
from compressor.runtimes.onnx_runtime import OnnxFile


def test_a_file_is_called_like_a_model_and_gives_a_tensor(linear):
    x = torch.randn(2, 5)
    weight = torch.arange(15, dtype=torch.float32).reshape(5, 3)
    torch.testing.assert_close(OnnxFile(linear)(x), x @ weight)


def test_a_file_tells_its_inputs_and_outputs(linear):
    file = OnnxFile(linear)
    assert file.inputs == (TensorInfo(name="x", dtype="float32", shape=("batch", 5)),)
    assert file.outputs == (TensorInfo(name="y", dtype="float32", shape=("batch", 3)),)


def test_several_outputs_come_as_a_tuple_in_the_files_order(write):
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    file = OnnxFile(write(nodes, {"x": ["n"]}, {"size": ["n"], "minus": ["n"]}))
    size, minus = file(torch.tensor([-2.0, 3.0]))
    assert file.input_names == ("x",)
    assert file.output_names == ("size", "minus")
    assert size.tolist() == [2.0, 3.0]
    assert minus.tolist() == [2.0, -3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool])
def test_tensors_keep_their_dtype_through_a_file(write, dtype):
    declared = {
        torch.float32: TensorProto.FLOAT,
        torch.float64: TensorProto.DOUBLE,
        torch.float16: TensorProto.FLOAT16,
        torch.int64: TensorProto.INT64,
        torch.bool: TensorProto.BOOL,
    }[dtype]
    node = helper.make_node("Identity", ["x"], ["y"])
    path = write([node], {"x": [3]}, {"y": [3]}, types={"x": declared, "y": declared})
    x = torch.tensor([0, 1, 1]).to(dtype)
    torch.testing.assert_close(OnnxFile(path)(x), x)


def test_a_tensor_that_is_not_contiguous_is_read_right(linear):
    x = torch.randn(5, 2)
    file = OnnxFile(linear)
    torch.testing.assert_close(file(x.T), file(x.T.contiguous()))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(2, 5, dtype=torch.float64),), "wants torch.float32, got torch.float64"),
        ((torch.zeros(5),), r"has 2 axes \(batch, 5\), got 1 axes \(5\)"),
        ((torch.zeros(2, 7),), "is fixed to 5 on axis 1, got 7"),
        ((np.zeros((2, 5), dtype=np.float32),), "wants a tensor, got ndarray"),
        ((torch.zeros(2, 5), torch.zeros(1)), r"takes 1 inputs \(x\), got 2"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_in_plain_words(linear, inputs, message):
    with pytest.raises(UsageError, match=message):
        OnnxFile(linear)(*inputs)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"nowhere\.onnx is not a file"):
        OnnxFile(tmp_path / "nowhere.onnx")


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ExportError, match=r"damaged\.onnx is not an ONNX file, or is cut off"):
        OnnxFile(path)


def test_a_file_that_fails_at_a_shape_says_at_which(write):
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = write([node], {"x": ["n"]}, {"y": [2, 3]}, {"shape": np.array([2, 3])})
    with pytest.raises(ExportError, match=r"model.onnx fails at x \(7,\)"):
        OnnxFile(path)(torch.zeros(7))


def test_no_threads_is_refused(linear):
    with pytest.raises(UsageError, match="threads is 0"):
        OnnxFile(linear, threads=0)
