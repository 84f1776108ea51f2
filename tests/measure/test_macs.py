import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.measure import macs
from tests.measure.conftest import recurrent_weights

FEW = settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
sizes = st.integers(1, 13)


def flops(module, *inputs):
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def array(tensor):
    return tensor.detach().numpy()


@FEW
@given(batch=sizes, inputs=sizes, outputs=sizes, transposed=st.booleans())
def test_a_linear_layer_has_half_the_flops_that_torch_counts(write, batch, inputs, outputs, transposed):
    layer, x = nn.Linear(inputs, outputs), torch.randn(batch, inputs)
    weight = array(layer.weight if transposed else layer.weight.T.contiguous())
    node = helper.make_node("Gemm", ["x", "W", "b"], ["y"], transB=int(transposed))
    path = write([node], {"x": ["batch", inputs]}, {"y": ["batch", outputs]}, {"W": weight, "b": array(layer.bias)})
    assert macs.count(path, [x]) == batch * inputs * outputs == flops(layer, x) // 2


@FEW
@given(batch=st.integers(1, 3), groups=st.integers(1, 3), kernel=st.integers(1, 4), stride=st.integers(1, 3))
def test_a_convolution_has_half_the_flops_that_torch_counts(write, batch, groups, kernel, stride):
    layer = nn.Conv1d(2 * groups, 5 * groups, kernel, stride=stride, groups=groups, padding=1)
    x = torch.randn(batch, 2 * groups, 17)
    node = helper.make_node("Conv", ["x", "W"], ["y"], strides=[stride], pads=[1, 1], group=groups)
    path = write([node], {"x": ["n", 2 * groups, "t"]}, {"y": ["n", 5 * groups, "u"]}, {"W": array(layer.weight)})
    assert macs.count(path, [x]) == flops(layer, x) // 2


def test_a_transposed_convolution_has_half_the_flops_that_torch_counts(write):
    layer, x = nn.ConvTranspose2d(3, 5, (2, 7), stride=2), torch.randn(2, 3, 11, 13)
    node = helper.make_node("ConvTranspose", ["x", "W"], ["y"], strides=[2, 2])
    path = write([node], {"x": ["n", 3, "h", "w"]}, {"y": ["n", 5, "i", "j"]}, {"W": array(layer.weight)})
    assert macs.count(path, [x]) == flops(layer, x) // 2


@pytest.mark.parametrize(("operator", "gates"), [("RNN", 1), ("GRU", 3), ("LSTM", 4)])
@pytest.mark.parametrize("directions", [1, 2])
def test_a_recurrent_layer_counts_one_product_with_input_and_state_per_gate(write, operator, gates, directions):
    time, batch, inputs, hidden = 7, 3, 5, 11
    node = helper.make_node(
        operator,
        ["x", "W", "R"],
        ["y"],
        hidden_size=hidden,
        direction="bidirectional" if directions == 2 else "forward",
    )
    weights = recurrent_weights(gates, inputs=inputs, hidden=hidden, directions=directions)
    shapes = {"x": ["time", "batch", inputs]}, {"y": ["time", directions, "batch", hidden]}
    path = write([node], *shapes, weights)
    assert macs.count(path, [torch.randn(time, batch, inputs)]) == (
        time * batch * directions * gates * hidden * (inputs + hidden)
    )


@FEW
@given(batch=sizes, rows=sizes, inner=sizes, columns=sizes)
def test_a_batched_matrix_product_is_counted_by_its_inner_axis(write, batch, rows, inner, columns):
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    path = write([node], {"a": ["n", "i", "k"], "b": ["n", "k", "j"]}, {"y": ["n", "i", "j"]})
    inputs = [torch.zeros(batch, rows, inner), torch.zeros(batch, inner, columns)]
    assert macs.count(path, inputs) == batch * rows * inner * columns


def test_einsum_counts_the_product_of_all_its_letters(write):
    node = helper.make_node("Einsum", ["a", "b"], ["y"], equation="bhid, bhjd -> bhij")
    path = write([node], {"a": list("bhid"), "b": list("bhjd")}, {"y": list("bhij")})
    assert macs.count(path, [torch.zeros(2, 3, 5, 7), torch.zeros(2, 3, 11, 7)]) == 2 * 3 * 5 * 11 * 7


@pytest.mark.parametrize("joined", [True, False])
def test_attention_counts_scores_and_weighted_sum(write, joined):
    batch, heads, queries, keys, width, value_width = 2, 3, 5, 7, 11, 13

    def tensor(length, size):
        return torch.zeros(batch, length, heads * size) if joined else torch.zeros(batch, heads, length, size)

    inputs = [tensor(queries, width), tensor(keys, width), tensor(keys, value_width)]
    attributes = {"q_num_heads": heads, "kv_num_heads": heads} if joined else {}
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], **attributes)
    shapes = dict(zip("qkv", (list(item.shape) for item in inputs), strict=True))
    path = write([node], shapes, {"y": list(tensor(queries, value_width).shape)}, opset=23)
    assert macs.count(path, inputs) == batch * heads * queries * keys * (width + value_width)


def test_shapes_that_only_a_run_tells_are_counted(write):
    nodes = [helper.make_node("NonZero", ["x"], ["where"]), helper.make_node("Cast", ["where"], ["f"], to=1)]
    nodes.append(helper.make_node("MatMul", ["f", "g"], ["y"]))
    path = write(nodes, {"x": ["n"], "g": ["k", 3]}, {"y": [1, 3]})
    assert macs.count(path, [torch.tensor([1.0, 0.0, 2.0, 0.0, 5.0]), torch.zeros(3, 3)]) == 1 * 3 * 3


def test_lookups_and_elementwise_weights_cost_no_macs(write):
    nodes = [helper.make_node("Gather", ["table", "x"], ["e"]), helper.make_node("Mul", ["e", "scale"], ["y"])]
    weights = {"table": np.ones((7, 5), np.float32), "scale": np.ones((1, 5), np.float32)}
    path = write(nodes, {"x": ["n"]}, {"y": ["n", 5]}, weights, types={"x": TensorProto.INT64})
    assert macs.count(path, [torch.tensor([1, 2])]) == 0


def test_a_loop_around_a_product_is_not_counted_and_is_named(write):
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "W"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, 3]),
        ],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    weights = {"trips": np.array(5), "W": np.eye(3, dtype=np.float32)}
    path = write([node], {"x": [2, 3]}, {"y": [2, 3]}, weights)
    found = macs.survey(path, [torch.zeros(2, 3)])
    assert found.uncounted == ("Loop",)
    assert found.total is None


def test_an_operator_of_another_domain_is_not_counted_and_is_named(write):
    node = helper.make_node("FusedMatMul", ["x", "W"], ["y"], domain="com.microsoft")
    path = write([node], {"x": [2, 3]}, {"y": [2, 5]}, {"W": np.ones((3, 5), np.float32)})
    assert macs.survey(path, [torch.zeros(2, 3)]).uncounted == ("com.microsoft::FusedMatMul",)


def test_products_inside_a_local_function_are_counted(write):
    inner = helper.make_function(
        "own", "Twice", ["a"], ["c"],
        [helper.make_node("MatMul", ["a", "a"], ["b"]), helper.make_node("MatMul", ["b", "a"], ["c"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    node = helper.make_node("Twice", ["x"], ["y"], domain="own")
    path = write([node], {"x": [3, 3]}, {"y": [3, 3]}, functions=[inner])
    assert macs.count(path, [torch.zeros(3, 3)]) == 2 * 27
