"""What each layer takes of a file: sums are those of the file, and a layer gets only what reads its weights alone."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from compressor.measure import by_layer, macs
from compressor.measure.by_layer import REST, Owners
from compressor.report import LayerSparsity

B, F, H, C = 3, 5, 13, 7


def parameter(name, *shape, zeros=0):
    size = int(np.prod(shape))
    return LayerSparsity(name=name, shape=shape, parameters=size, nonzeros=size - zeros)


PARAMETERS = (
    parameter("body.linear.weight", H, F, zeros=2),
    parameter("body.linear.bias", H),
    parameter("readout.weight", C, H),
    parameter("temperature", 1),
)


@pytest.fixture
def rounded(write):
    """A Gemm whose weight is stored in 8 bits, an activation, a Gemm, and a division by a weight without a module."""
    nodes = [
        helper.make_node("DequantizeLinear", ["body.linear.weight.int8", "body.linear.weight.scale"], ["dequantized"]),
        helper.make_node("Gemm", ["x", "dequantized", "body.linear.bias"], ["hidden"], transB=1),
        helper.make_node("Tanh", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "readout.weight"], ["logits"], transB=1),
        helper.make_node("Div", ["logits", "temperature"], ["y"]),
    ]
    weights = {
        "body.linear.weight.int8": np.ones((H, F), np.int8),
        "body.linear.weight.scale": np.float32(0.1),
        "body.linear.bias": np.zeros(H, np.float32),
        "readout.weight": np.ones((C, H), np.float32),
        "temperature": np.ones(1, np.float32),
    }
    return write(nodes, {"x": ["batch", F]}, {"y": ["batch", C]}, weights)


def costs(path, parameters=PARAMETERS, inputs=None):
    given = [torch.ones(B, F)] if inputs is None else inputs
    found = by_layer.costs(path, given, parameters, macs.survey(path, given))
    return {cost.name: cost for cost in found}


def test_a_weight_belongs_to_the_module_that_its_name_begins_with():
    owners = Owners(["a.weight", "a.b.weight", "scale"])
    names = ["a.weight", "a.weight.int8", "a.B_l0", "a.b.weight_T", "scale.int8", "val_3", "ab.weight", "weight", ""]
    assert [owners.of(name) for name in names] == ["a", "a", "a", "a.b", "scale", REST, REST, REST, REST]


def test_products_go_to_the_layer_whose_weights_are_multiplied(rounded):
    found = costs(rounded)
    assert list(found) == ["body.linear", "readout", "temperature", REST]
    assert [cost.macs for cost in found.values()] == [B * F * H, B * H * C, 0, 0]
    assert sum(cost.macs for cost in found.values()) == macs.count(rounded, [torch.ones(B, F)])


def test_bytes_are_those_of_the_file_and_of_the_form_in_which_it_stores_weights(rounded):
    found = costs(rounded)
    assert found["body.linear"].bytes == H * F + 4 + 4 * H
    assert found["readout"].bytes == 4 * C * H
    assert sum(cost.bytes for cost in found.values()) == rounded.stat().st_size


def test_parameters_and_zeros_are_those_of_the_model(rounded):
    found = costs(rounded)
    assert (found["body.linear"].parameters, found["body.linear"].nonzeros) == (H * F + H, H * F + H - 2)
    assert sum(cost.parameters for cost in found.values()) == sum(layer.parameters for layer in PARAMETERS)


def test_time_is_spent_by_the_layer_that_works(write):
    weights = {"large.weight": np.ones((1500, 1500), np.float32), "idle.weight": np.ones((2, 2), np.float32)}
    path = write(
        [helper.make_node("MatMul", ["x", "large.weight"], ["y"])], {"x": [20, 1500]}, {"y": [20, 1500]}, weights
    )
    found = costs(path, (parameter("large.weight", 1500, 1500), parameter("idle.weight", 2, 2)), [torch.ones(20, 1500)])
    assert found["large"].milliseconds > 0
    assert (found["idle"].milliseconds, found[REST].milliseconds) == (0, 0)


def test_a_node_that_reads_weights_of_two_layers_belongs_to_neither(write):
    weights = {"a.weight": np.ones((F, F), np.float32), "b.bias": np.ones(F, np.float32)}
    node = helper.make_node("Gemm", ["x", "a.weight", "b.bias"], ["y"])
    path = write([node], {"x": ["batch", F]}, {"y": ["batch", F]}, weights)
    found = costs(path, (parameter("a.weight", F, F), parameter("b.bias", F)))
    assert (found["a"].macs, found["b"].macs, found[REST].macs) == (0, 0, B * F * F)
    assert found["a"].bytes == 4 * F * F


def test_a_loop_belongs_to_the_layer_whose_weights_its_body_reads(write):
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "cell.weight"], ["product"]),
            helper.make_node("Add", ["product", "step"], ["next"]),
            helper.make_node("Identity", ["next"], ["out"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, F]) for name in ("state", "step")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, F]) for name in ("next", "out")],
    )
    scan = helper.make_node("Scan", ["initial", "x"], ["last", "y"], body=body, num_scan_inputs=1)
    weights = {"cell.weight": np.ones((F, F), np.float32), "initial": np.zeros((1, F), np.float32)}
    path = write([scan], {"x": ["time", 1, F]}, {"y": ["time", 1, F]}, weights)
    found = costs(path, (parameter("cell.weight", F, F),), [torch.ones(11, 1, F)])
    assert (found["cell"].macs, found[REST].macs) == (11 * F * F, 0)
    assert found["cell"].milliseconds > 0


def test_products_are_unknown_if_one_cannot_be_counted(rounded):
    given = [torch.ones(B, F)]
    counted = macs.MacCount({}, uncounted=("com.microsoft::FusedMatMul",))
    assert {cost.macs for cost in by_layer.costs(rounded, given, PARAMETERS, counted)} == {None}


def test_what_is_computed_of_weights_alone_belongs_to_their_layer(write):
    weights = {"a.weight": np.ones((F, F), np.float32), "b.weight": np.ones((F, F), np.float32)}
    nodes = [
        helper.make_node("Transpose", ["a.weight"], ["a turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "a turned"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["activated"]),
        helper.make_node("MatMul", ["activated", "b.weight"], ["y"]),
    ]
    path = write(nodes, {"x": ["batch", F]}, {"y": ["batch", F]}, weights)
    found = costs(path, (parameter("a.weight", F, F), parameter("b.weight", F, F)))
    assert [found[name].macs for name in ("a", "b", REST)] == [B * F * F, B * F * F, 0]


class Session:
    """Takes 1000 microseconds and more for a node while it warms up, then as many as its place and the run say."""

    def __init__(self, folder, nodes):
        self.folder, self.nodes, self.runs = folder, nodes, 0

    def run(self, names, feed):
        self.runs += 1

    def end_profiling(self):
        events = [{"name": "model_loading", "dur": 7}, {"name": "node0_fence_before", "dur": 9}, {"dur": 3}]
        for run in range(self.runs):
            for place in range(self.nodes):
                spent = 1000 + run if run < 3 else 100 * (place + 1) + run
                events.append({"name": f"node{place}_kernel_time", "dur": str(spent)})
            events.append({"name": "Reorder_kernel_time", "dur": 10**6})
        (self.folder / "profile.json").write_text(json.dumps(events))
        return str(self.folder / "profile.json")


def test_milliseconds_are_the_median_of_the_runs_after_warm_up_summed_over_the_nodes_of_a_module(
    rounded, monkeypatch, tmp_path
):
    made = []

    def open_session(given, *, threads, optimized=None, optimization="all", profile=None):
        if optimized is not None:
            optimized.write_bytes(rounded.read_bytes())
            return None
        assert (threads, optimization) == (1, "none")
        made.append(Session(tmp_path, 5))
        return made[0]

    monkeypatch.setattr(by_layer, "open_session", open_session)
    monkeypatch.setattr(by_layer.time, "perf_counter", lambda: 0.0)
    found = costs(rounded)
    assert made[0].runs == 3 + 50
    median = 3 + 49 / 2  # of the numbers of the runs that count
    wanted = {"body.linear": 100 + 200 + 2 * median, "readout": 400 + median, "temperature": 500 + median}
    assert {name: cost.milliseconds for name, cost in found.items()} == pytest.approx(
        {name: value / 1000 for name, value in {**wanted, REST: 300 + median}.items()}
    )
    later = iter([0.0, *([0.4] * 4), 0.6])
    monkeypatch.setattr(by_layer.time, "perf_counter", lambda: next(later))
    made.clear()
    costs(rounded)
    assert made[0].runs == 3 + 1 + 4


def test_weights_outside_of_the_file_are_counted_and_timed(write, tmp_path):
    weights = {f"{name}.weight": np.ones((F, F), np.float32) for name in "ab"}
    nodes = [
        helper.make_node("MatMul", ["x", "a.weight"], ["h"]), helper.make_node("MatMul", ["h", "b.weight"], ["y"])
    ]  # fmt: skip
    path = write(nodes, {"x": ["batch", F]}, {"y": ["batch", F]}, weights)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    found = costs(path, (parameter("a.weight", F, F), parameter("b.weight", F, F)))
    assert found["a"].bytes == found["b"].bytes == 4 * F * F
    whole = path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert sum(cost.bytes for cost in found.values()) == whole


def test_numbers_in_fields_of_their_own_type_are_bytes_too(write):
    path = write([helper.make_node("MatMul", ["x", "a.weight"], ["y"])], {"x": ["batch", F]}, {"y": ["batch", F]})
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("a.weight", TensorProto.FLOAT, [F, F], np.ones(F * F)))
    onnx.save(model, path)
    found = costs(path, (parameter("a.weight", F, F),))
    assert 4 * F * F <= found["a"].bytes < 5 * F * F
    assert sum(cost.bytes for cost in found.values()) == path.stat().st_size
