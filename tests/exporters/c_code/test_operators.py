"""Every operator that has C, compiled and compared with ONNX's reference implementation."""

from __future__ import annotations

import ctypes
import subprocess

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compressor.errors import ExportError
from compressor.runtimes.session import open_session
from exporters.c_code.files import write
from exporters.c_code.loops import loops, merged
from exporters.c_code.names import identifier
from exporters.c_code.program import safe
from exporters.c_code.rounding import Rounding
from tests.compilers import CC, needs_compiler

STRICT = (
    *(
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-Wconversion",
        "-Wsign-conversion",
        "-Wshadow",
        "-Wundef",
    ),
    *("-Wdouble-promotion", "-Wcast-qual", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wbad-function-cast"),
)
"""What a reviewer of embedded code would switch on."""
RANDOM = np.random.default_rng(0)
FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def graph(nodes, inputs, outputs, constants=None):
    """A checked model with all sizes known; inputs and outputs are (name, shape) or (name, shape, type)."""
    values = [
        [helper.make_tensor_value_info(item[0], (*item[2:], FLOAT)[0], item[1]) for item in part]
        for part in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", *values, initializers), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def computed(model, feeds, folder, *, rounding=None, calls=1, fast_math=False, level="-O1"):
    """What the compiled C of a graph gives."""
    written = write(ir.from_proto(model), "net", None, rounding=rounding, facts=["a test"], fast_math=fast_math)
    for name, text in (("net.h", written.header), ("net.c", written.code)):
        (folder / name).write_text(text)
    strict = [*STRICT, level, "-shared", "-fPIC"]
    library_name = f"net{len(list(folder.glob('*.so')))}.so"  # one that is loaded stays as it is
    done = subprocess.run(
        [CC, *strict, "-o", library_name, "net.c", "-lm"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(str(folder / library_name))
    state = np.zeros(written.state_bytes // 4 + 1, np.float32)
    kinds = {"float": np.float32, "int32_t": np.int32}
    given = [np.ascontiguousarray(feeds[item.title], kinds[item.kind]) for item in written.inputs]
    results = [np.full(item.shape, 7, kinds[item.kind]) for item in written.outputs]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (state, *given, *results)]
    library.net_init(pointers[0])
    for _ in range(calls):
        getattr(library, written.call)(*pointers)
    return results


def is_right(model, feeds, folder, *, atol=1e-6):
    """Whether the compiled C of a graph gives what ONNX's reference implementation gives."""
    expected = ReferenceEvaluator(model).run(None, feeds)
    results = computed(model, feeds, folder)
    pairs = zip(results, expected, strict=True)
    return all(one.shape == other.shape and np.allclose(one, other, rtol=1e-5, atol=atol) for one, other in pairs)


def one(operator, shape, out, constants=None, *, outputs=("y",), extra=(), **attributes):
    """A node on an input `x` and constants."""
    node = helper.make_node(operator, ["x", *extra, *(constants or {})], list(outputs), **attributes)
    outs = out if len(outputs) > 1 else [out]
    return graph([node], [("x", shape)], list(zip(outputs, outs, strict=True)), constants)


def statistics(channels):
    return {name: normal(channels) for name in ("weight", "shift", "mean")} | {"variance": normal(channels) ** 2}


def numbers(*values):
    return np.array(values, np.int64)


UNARY = [
    *(
        "Abs",
        "Ceil",
        "Cos",
        "Erf",
        "Exp",
        "Floor",
        "Neg",
        "Relu",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Tanh",
    ),
    *("Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Gelu", "Identity"),
]
SHAPED = {
    "transpose": one("Transpose", [2, 3, 5], [5, 2, 3], perm=[2, 0, 1]),
    "transpose that moves nothing": one("Transpose", [1, 3, 5], [3, 1, 5], perm=[1, 0, 2]),
    "slice with steps": one(
        "Slice", [2, 7, 3], [2, 3, 3], {"a": numbers(1), "b": numbers(7), "c": numbers(1), "d": numbers(2)}
    ),
    "slice from behind": one(
        "Slice", [2, 7], [2, 7], {"a": numbers(-1), "b": numbers(-100), "c": numbers(1), "d": numbers(-1)}
    ),
    "split": one("Split", [2, 7], [[2, 3], [2, 4]], {"a": numbers(3, 4)}, outputs=("y", "z"), axis=1),
    "expand": one("Expand", [3, 1], [2, 3, 5], {"a": numbers(2, 3, 5)}),
    "reshape": one("Reshape", [2, 6], [3, 4], {"a": numbers(3, 4)}),
    "gather one": one("Gather", [2, 7, 3], [2, 3], {"a": np.array(-2, np.int64)}, axis=1),
    "gather some": one("Gather", [2, 7, 3], [2, 2, 3], {"a": numbers(5, 0)}, axis=1),
    "softmax": one("Softmax", [2, 5, 3], [2, 5, 3], axis=1),
    "log softmax": one("LogSoftmax", [2, 5], [2, 5], axis=-1),
    "layer norm": one("LayerNormalization", [2, 3, 7], [2, 3, 7], {"a": normal(7), "b": normal(7)}),
    "layer norm of two axes, no bias": one("LayerNormalization", [2, 3, 7], [2, 3, 7], {"a": normal(3, 7)}, axis=1),
    "batch norm": one("BatchNormalization", [2, 3, 5], [2, 3, 5], statistics(3)),
    "batch norm of rows": one("BatchNormalization", [4, 3], [4, 3], statistics(3), epsilon=0.1),
    "mean": one("ReduceMean", [2, 3, 5], [2, 1, 5], {"a": numbers(1)}),
    "sum of all": one("ReduceSum", [2, 3], [], keepdims=0),
    "maximum": one("ReduceMax", [2, 3, 5], [3], {"a": numbers(0, 2)}, keepdims=0),
    "minimum": one("ReduceMin", [2, 5], [2], {"a": numbers(-1)}, keepdims=0),
    "norm": one("ReduceL2", [2, 5], [2, 1], {"a": numbers(-1)}),
    "clip": one("Clip", [2, 5], [2, 5], {"a": np.float32(-0.5), "b": np.float32(0.25)}),
    "matmul": one("MatMul", [2, 3, 5], [2, 3, 7], {"a": normal(5, 7)}),
    "matmul of vectors": one("MatMul", [5], [7], {"a": normal(5, 7)}),
    "gemm": one("Gemm", [3, 5], [3, 7], {"a": normal(7, 5), "b": normal(7)}, transB=1, alpha=0.5, beta=2.0),
    "convolution": one(
        "Conv", [2, 4, 11], [2, 6, 6], {"a": normal(6, 2, 3), "b": normal(6)}, pads=[2, 1], strides=[2], group=2
    ),
    "convolution, dilated": one("Conv", [1, 2, 11], [1, 3, 7], {"a": normal(3, 2, 3)}, dilations=[2]),
    "convolution of pictures": one(
        "Conv", [1, 2, 5, 7], [1, 3, 5, 3], {"a": normal(3, 2, 3, 2), "b": normal(3)}, pads=[1, 0, 1, 0], strides=[1, 2]
    ),
}


@needs_compiler
@pytest.mark.parametrize("operator", UNARY)
def test_functions_of_one_element(operator, tmp_path):
    x = normal(3, 5) * 3.0
    assert is_right(one(operator, [3, 5], [3, 5]), {"x": x}, tmp_path)


@needs_compiler
@pytest.mark.parametrize("operator", ["Log", "Sqrt", "Reciprocal"])
def test_functions_of_positive_elements(operator, tmp_path):
    assert is_right(one(operator, [3, 5], [3, 5]), {"x": np.abs(normal(3, 5)) + 0.1}, tmp_path)


@needs_compiler
@pytest.mark.parametrize("name", SHAPED)
def test_operators_on_axes(name, tmp_path):
    model = SHAPED[name]
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert is_right(model, {"x": normal(*shape)}, tmp_path, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
@pytest.mark.parametrize(
    ("left", "right"), [((2, 3, 5), (5,)), ((2, 1, 5), (1, 3, 1)), ((3,), (2, 5, 3)), ((2, 3), ())]
)
def test_pairs_are_stretched_to_each_other(operator, left, right, tmp_path):
    shape = np.broadcast_shapes(left, right)
    node = helper.make_node(operator, ["x", "a"], ["y"])
    model = graph([node], [("x", left), ("a", right)], [("y", shape)])
    feeds = {"x": np.abs(normal(*left)) + 0.1, "a": np.asarray(np.abs(normal(*right)) + 0.1, np.float32)}
    assert is_right(model, feeds, tmp_path)


@needs_compiler
def test_comparisons_choices_and_casts(tmp_path):
    nodes = [
        helper.make_node("Greater", ["x", "a"], ["larger"]),
        helper.make_node("Not", ["larger"], ["not"]),
        helper.make_node("Where", ["not", "x", "a"], ["chosen"]),
        helper.make_node("Cast", ["larger"], ["counted"], to=FLOAT),
        helper.make_node("Add", ["chosen", "counted"], ["y"]),
    ]
    model = graph(nodes, [("x", [2, 3]), ("a", [3])], [("y", [2, 3])])
    assert is_right(model, {"x": normal(2, 3), "a": normal(3)}, tmp_path)


@needs_compiler
def test_rows_of_a_table_are_looked_up(tmp_path):
    node = helper.make_node("Gather", ["table", "i"], ["y"])
    model = graph([node], [("i", [2, 3], INT)], [("y", [2, 3, 4])], {"table": normal(9, 4)})
    assert is_right(model, {"i": np.array([[0, 8, -1], [3, 3, 5]])}, tmp_path)


@needs_compiler
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_elements_are_looked_up_along_an_axis(axis, tmp_path):
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)
    shape = (2, 3, 5)
    size = [*shape]
    size[axis] = 4
    chosen = RANDOM.integers(-shape[axis], shape[axis], size)
    model = graph([node], [("x", shape), ("i", size, INT)], [("y", size)])
    assert is_right(model, {"x": normal(*shape), "i": chosen}, tmp_path)


@needs_compiler
def test_an_input_that_nothing_reads_is_no_warning(tmp_path):
    model = graph([helper.make_node("Neg", ["x"], ["y"])], [("x", [3]), ("lengths", [1], INT)], [("y", [3])])
    assert is_right(model, {"x": normal(3), "lengths": np.array([2])}, tmp_path)


@needs_compiler
def test_parts_are_put_side_by_side_and_memory_is_used_again(tmp_path):
    nodes = [helper.make_node("Tanh", ["x"], ["a0"])]
    nodes += [helper.make_node("Exp", [f"a{index}"], [f"b{index}"]) for index in range(1)]
    nodes += [helper.make_node("Concat", ["b0", "x", "a0"], ["c"], axis=1), helper.make_node("Neg", ["c"], ["y"])]
    assert is_right(graph(nodes, [("x", [2, 3])], [("y", [2, 9])]), {"x": normal(2, 3)}, tmp_path)


@needs_compiler
@pytest.mark.parametrize("outside", [False, True])
def test_what_a_product_adds_is_its_bias_and_an_earlier_value(outside, tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["p"]),
        helper.make_node("MatMul", ["h", "w"], ["q"]),
        helper.make_node("Add", ["q", "b"], ["r"]),
        helper.make_node("Add", ["p", "r"], ["s"]),
        helper.make_node("Add", ["s", "p"] if outside else ["s", "s"], ["y"]),
    ]
    constants = {"v": normal(5, 7), "w": normal(3, 7), "b": normal(7)}
    model = graph(nodes, [("x", [2, 5]), ("h", [2, 3])], [("y", [2, 7])], constants)
    assert is_right(model, {"x": normal(2, 5), "h": normal(2, 3)}, tmp_path, atol=1e-5)
    calls = [line for line in (tmp_path / "net.c").read_text().splitlines() if line.startswith("    k_rows(")]
    assert ["NULL, NULL" in line for line in calls] == [True, False]


@needs_compiler
@pytest.mark.parametrize("other", ["b", "x"])
def test_what_is_added_to_a_product_with_a_stack_of_matrices_is_added(other, tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", other], ["y"])]
    model = graph(nodes, [("x", [2, 3, 5])], [("y", [2, 3, 5])], {"w": normal(2, 5, 5), "b": normal(5)})
    assert is_right(model, {"x": normal(2, 3, 5)}, tmp_path, atol=1e-5)


@needs_compiler
def test_a_product_does_not_write_over_what_it_still_reads(tmp_path):
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["p"]),
        helper.make_node("Add", ["p", "a"], ["s"]),
        helper.make_node("Neg", ["s"], ["y"]),
    ]
    model = graph(nodes, [("x", [2, 5])], [("y", [2, 5])], {"w": normal(5, 5)})
    assert is_right(model, {"x": normal(2, 5)}, tmp_path, atol=1e-5)


@needs_compiler
def test_memory_of_an_input_that_is_read_again_is_not_taken_over(tmp_path):
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["turned"]),
        helper.make_node("Mul", ["a", "a"], ["b"]),
        helper.make_node("Add", ["b", "x"], ["c"]),
        helper.make_node("MatMul", ["turned", "c"], ["d"]),
        helper.make_node("Neg", ["d"], ["y"]),
    ]
    model = graph(nodes, [("x", [2, 3])], [("y", [3, 3])], {"shape": numbers(3, 2)})
    assert is_right(model, {"x": normal(2, 3)}, tmp_path, atol=1e-5)
    chain = [helper.make_node("Tanh", ["x"], ["a0"])]
    chain += [helper.make_node("Sin", [f"a{index}"], [f"a{index + 1}"]) for index in range(4)]
    long = graph([*chain, helper.make_node("Neg", ["a4"], ["y"])], [("x", [6])], [("y", [6])])
    assert is_right(long, {"x": normal(6)}, tmp_path)
    assert "float w[6];" in (tmp_path / "net.h").read_text()


@needs_compiler
def test_a_convolution_over_the_whole_input_is_a_product_that_is_rounded_too(tmp_path):
    model = one("Conv", [1, 4, 3], [1, 6, 1], {"a": normal(6, 4, 3), "b": normal(6)})
    x = normal(1, 4, 3)
    assert is_right(model, {"x": x}, tmp_path, atol=1e-5)
    [rounded] = computed(model, {"x": x}, tmp_path, rounding=Rounding(None))
    [exact] = ReferenceEvaluator(model).run(None, {"x": x})
    assert 0 < np.abs(rounded - exact).max() < 0.1


@needs_compiler
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("operator", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
def test_recurrent_layers(operator, gates, direction, tmp_path):
    count, steps, inputs, units = 2 if direction == "bidirectional" else 1, 5, 3, 4
    constants = {
        "W": normal(count, gates * units, inputs),
        "R": normal(count, gates * units, units),
        "B": normal(count, 2 * gates * units),
    }
    names = ["Y", "Y_h", "Y_c"] if operator == "LSTM" else ["Y", "Y_h"]
    options = {"linear_before_reset": 1} if operator == "GRU" else {}
    node = helper.make_node(
        operator, ["x", "W", "R", "B", "", "h"], names, hidden_size=units, direction=direction, **options
    )
    outs = [("Y", [steps, count, 1, units]), *((name, [count, 1, units]) for name in names[1:])]
    model = graph([node], [("x", [steps, 1, inputs]), ("h", [count, 1, units])], outs, constants)
    feeds = {"x": normal(steps, 1, inputs), "h": normal(count, 1, units)}
    session = open_session(model.SerializeToString())
    for result, wanted in zip(computed(model, feeds, tmp_path), session.run(None, feeds), strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_weights_in_8_bits_are_within_half_a_step_of_each_row(tmp_path):
    weights = normal(5, 7)
    model = one("MatMul", [1, 5], [1, 7], {"a": weights})
    x = normal(1, 5)
    [result] = computed(model, {"x": x}, tmp_path, rounding=Rounding(None))
    steps = np.abs(weights).max(0) / 127
    assert (np.abs(result - x @ weights) <= 0.5 * steps * np.abs(x).sum() + 1e-6).all()
    assert not np.allclose(result, x @ weights, atol=1e-7)


def test_an_operator_without_c_is_refused_by_its_name():
    node = helper.make_node("Det", ["x"], ["y"], name="/head/Det")
    with pytest.raises(ExportError, match="Det `/head/Det` is not supported in C"):
        write(ir.from_proto(graph([node], [("x", [3, 3])], [("y", [])])), "net", None, rounding=None, facts=[])


def test_a_size_that_is_not_known_is_refused():
    node = helper.make_node("Tanh", ["x"], ["y"])
    model = graph([node], [("x", ["time", 3])], [("y", ["time", 3])])
    with pytest.raises(ExportError, match="the size of `x` is not known"):
        write(ir.from_proto(model), "net", None, rounding=None, facts=[])


@pytest.mark.parametrize(
    ("text", "name"),
    [("my model.v2", "my_model_v2"), ("3d", "m_3d"), ("float", "m_float"), ("é", "x"), ("c0", "m_c0"), ("i", "m_i")],
)
def test_any_name_becomes_a_name_of_c(text, name):
    assert identifier(text) == name


def test_names_cannot_leave_a_comment():
    assert "*/" not in safe('a */ system("x"); /* \\\n b')
    assert "\n" not in safe("a\nb")


def test_neighbouring_axes_are_one_loop():
    assert merged((2, 1, 3, 5), [(15, 15, 5, 1), (0, 0, 5, 1)]) == ([2, 15], [(15, 1), (0, 1)])
    assert loops((), [()], lambda index: [f"y[{index[0]}];"]) == ["y[0];"]
