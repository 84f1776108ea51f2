"""Layers that take the place of PyTorch's export to what phones know, and agree at sizes never seen."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.lama import LamaAttention
from compressor.nn.attention.pooling import MeanPooling, PoolingReplacement
from compressor.nn.attention.pooling_call import PoolingCall
from compressor.nn.norm import WideLayerNorm
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.exporters.conftest import features_task
from tests.exporters.packed import exported_packed
from tests.tolerances import EXPORTED_FLOAT32

INPUT = 5
TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}
MODES = {"RNN_TANH": "RNN", "RNN_RELU": "RNN", "GRU": "GRU", "LSTM": "LSTM"}


class Recurrent(nn.Module):
    """One-way layers with states given and taken, both ways with equal and other sizes, and one unbatched sample."""

    def __init__(self, mode):
        super().__init__()
        self.pair = mode == "LSTM"
        self.streaming = UnevenRecurrent(mode, INPUT, [[7], [3]], batch_first=True)
        self.both = UnevenRecurrent(mode, INPUT, [[7, 3], [2, 2], [3, 11]])

    def forward(self, features, *states):
        count = 2 if self.pair else 1
        given = [[states[i], states[count + i]] for i in range(count)]
        output, last = self.streaming(features, tuple(given) if self.pair else given[0])
        both, both_last = self.both(features.transpose(0, 1))
        single, _ = self.both(features[0])
        ends = both_last[0] if self.pair else both_last
        summary = torch.cat([ends[-2], ends[-1]], -1)  # (B, 14)
        kinds = last if self.pair else [last]
        return output, both, single, summary, *(kind[layer] for layer in range(2) for kind in kinds)


def _recurrent_task(mode):
    count = 2 if mode == "LSTM" else 1
    sizes = [7] * count + [3] * count
    names = [f"state_{index}" for index in range(2 * count)]
    return RandomTask(
        {"features": TIMED} | dict.fromkeys(names, LAST),
        {"output": TIMED, "both": {0: "time", 1: "batch"}, "single": {0: "time"}, "summary": LAST}
        | {f"last_{name}": LAST for name in names},
        lambda batch, length: (torch.randn(batch, length, INPUT), *(torch.randn(batch, size) for size in sizes)),
    )


@pytest.fixture(scope="module", params=MODES)
def recurrent(request, tmp_path_factory):
    torch.manual_seed(0)
    model, task = Recurrent(request.param).eval(), _recurrent_task(request.param)
    path = tmp_path_factory.mktemp("uneven") / "model.onnx"
    return model, task, path, export(Job(model, task, path, Options())), MODES[request.param]


def test_uneven_layers_agree_with_pytorch_at_an_unseen_size(recurrent):
    model, task, path, artifact, _ = recurrent
    inputs = task.example(7, 23)
    assert_agrees(path, model, *inputs)
    assert artifact.parity.passed


def test_uneven_layers_are_native_nodes_and_directions_of_equal_size_share_one(recurrent):
    *_, path, artifact, operator = recurrent
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == operator]
    attributes = [{item.name: onnx.helper.get_attribute_value(item) for item in node.attribute} for node in nodes]
    both = [(b"forward", 7), (b"reverse", 3), (b"bidirectional", 2), (b"forward", 3), (b"reverse", 11)]
    expected = [(b"forward", 7), (b"forward", 3), *both, *both]
    assert [(item["direction"], item["hidden_size"]) for item in attributes] == expected
    assert not {"Loop", "Scan", "MatMul", "Gemm", "ReverseSequence"} & set(artifact.operators)


def test_weights_of_uneven_layers_are_plain_initializers_and_nothing_is_stored_twice(recurrent):
    model, *_, path, _, operator = recurrent
    graph = onnx.load(path).graph
    initializers = {initializer.name for initializer in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == operator]
    assert all(name in initializers for node in nodes for name in node.input[1:4])
    stored = sum(len(onnx.numpy_helper.to_array(item).ravel()) for item in graph.initializer)
    assert stored <= sum(parameter.numel() for parameter in model.parameters()) + 50


@pytest.mark.parametrize("mode", ["GRU", "LSTM"])
def test_packed_sequences_become_lengths_of_the_nodes(tmp_path, mode):
    torch.manual_seed(0)
    layer = UnevenRecurrent(mode, INPUT, [[7, 3], [3, 2]], batch_first=True)
    assert exported_packed(layer, INPUT, tmp_path / "model.onnx").operators[mode] == 4


class Attention(nn.Module):
    """Attention of its own widths with both kinds of output, and one inside PyTorch's encoder layer."""

    def __init__(self):
        super().__init__()
        self.own = CompactMultiheadAttention(
            2, query_width=INPUT, key_width=INPUT, value_width=INPUT, head_width=3, value_head_width=7,
            output_width=12, scale=0.5, batch_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoderLayer(12, 2, 13, batch_first=True)
        self.encoder.self_attn = CompactMultiheadAttention.from_module(self.encoder.self_attn)

    def forward(self, features, lengths):
        padding = torch.arange(features.size(1)) >= lengths[:, None]
        causal = torch.ones(features.size(1), features.size(1), dtype=torch.bool).triu(1)
        y, weights = self.own(features, features, features, key_padding_mask=padding, average_attn_weights=False)
        plain, _ = self.own(features, features, features, attn_mask=causal, need_weights=False)
        return y, weights, plain, self.encoder(y, src_key_padding_mask=padding)


def test_attention_agrees_with_pytorch_at_an_unseen_size(tmp_path):
    task = RandomTask(
        {"features": TIMED, "lengths": LAST},
        {"y": TIMED, "weights": {0: "batch", 2: "time", 3: "time"}, "plain": TIMED, "encoded": TIMED},
        lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length)),
    )
    torch.manual_seed(0)
    model, path = Attention().eval(), tmp_path / "model.onnx"
    assert export(Job(model, task, path, Options())).parity.passed
    inputs = task.example(7, 23)
    assert_agrees(path, model, *inputs)


@pytest.mark.parametrize("features", [INPUT, 4])
def test_normalisation_becomes_plain_operators(tmp_path, features):
    torch.manual_seed(0)
    norm = WideLayerNorm(features, 13)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    model, path = nn.Sequential(nn.Linear(INPUT, features), norm), tmp_path / "model.onnx"
    artifact = export(Job(model, features_task({"y": TIMED}), path, Options()))
    assert set(artifact.operators) <= {"Add", "Div", "Gemm", "MatMul", "Mul", "ReduceSum", "Sqrt", "Sub", "Pow"}
    x = torch.randn(7, 23, INPUT)
    assert_agrees(path, model, x)


def test_exported_normalisation_is_accurate_in_float32_where_the_mean_is_large(tmp_path):
    norm, path = WideLayerNorm(INPUT, 13), tmp_path / "model.onnx"
    export(Job(norm, features_task({"y": TIMED}), path, Options()))
    x = 10_000 + torch.randn(7, 23, INPUT)
    with torch.no_grad():
        exact = norm.double()(x.double())
    torch.testing.assert_close(OnnxFile(path)(x).double(), exact, atol=2e-6, rtol=0)


class Poolings(nn.Module):
    """Poolings that took another one's place: both contexts, every kind of mask and of readout."""

    def __init__(self):
        super().__init__()
        names, lama = ("states", "mask"), LamaAttention
        self.marked = PoolingReplacement(
            PoolingCall(names, "states", (0, 1, 2), "mask", "real"), lama(INPUT, 3), 15, "rows"
        )
        self.padded = PoolingReplacement(
            PoolingCall(names, "states", (1, 0, 2), "mask", "padding"), lama(INPUT, 2, context="mean"), 10, "mix"
        )
        self.counted = PoolingReplacement(
            PoolingCall(names, "states", (0, 2, 1), "mask", "lengths"), lama(INPUT, 4, mlp=True), 7, "linear"
        )
        self.zeros = PoolingReplacement(PoolingCall(names, "states", mask_kind="zeros"), lama(INPUT, 1), 5, "rows")
        self.mean = PoolingReplacement(PoolingCall(names, "states"), MeanPooling(INPUT), 7, "linear")

    def forward(self, features, lengths):
        real = torch.arange(features.size(1)) < lengths[:, None]
        added = torch.zeros(real.shape).masked_fill(~real, -torch.inf)
        return (
            self.marked(features, mask=real[:, None].float()),
            self.padded(features.transpose(0, 1), added),
            self.counted(features.transpose(1, 2), lengths),
            self.zeros(features * real[:, :, None]),
            self.mean(features),
        )


@pytest.fixture(scope="module")
def poolings(tmp_path_factory):
    torch.manual_seed(0)
    task = RandomTask(
        {"features": TIMED, "lengths": LAST},
        dict.fromkeys(("marked", "padded", "counted", "zeros", "mean"), LAST),
        lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length)),
    )
    model, path = Poolings().eval(), tmp_path_factory.mktemp("poolings") / "model.onnx"
    artifact = export(Job(model, task, path, Options()))
    return model, OnnxFile(path), path, artifact


@pytest.mark.parametrize(("batch", "length"), [(7, 23), (1, 1), (13, 2), (1, 101)])
def test_poolings_agree_with_pytorch_at_unseen_sizes(poolings, batch, length):
    model, file, *_ = poolings
    inputs = torch.randn(batch, length, INPUT), random_lengths(batch, length)
    with torch.no_grad():
        torch.testing.assert_close(file(*inputs), model(*inputs), **EXPORTED_FLOAT32)


def test_exported_poolings_do_not_read_the_padding_and_give_zeros_where_all_is_padding(poolings):
    file = poolings[1]
    features, lengths = torch.randn(3, 11, INPUT), torch.tensor([0, 4, 11])
    padding = (torch.arange(11) >= lengths[:, None])[:, :, None]
    # `zeros` and `mean` read it in what they are given here
    first = file(features, lengths)[:3]
    second = file(features.masked_fill(padding, torch.nan), lengths)[:3]
    for clean, dirty in zip(first, second, strict=True):
        assert torch.equal(clean, dirty)
    assert bool((first[0][0] == 0).all())


def test_poolings_become_plain_operators_without_loops(poolings):
    model, _, path, artifact = poolings
    known = {"MatMul", "Mul", "Tanh", "Softmax", "Where", "Sqrt", "Reciprocal", "Div", "ReduceSum", "ReduceMean", "Add"}
    shapes = {"Cast", "Concat", "Expand", "Gather", "Reshape", "Shape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
    others = {
        "Less",
        "Range",
        "Not",
        "And",
        "Equal",
        "ReduceMax",
        "Gemm",
        "Max",
        "Clip",
        "Pow",
        "Greater",
        "Abs",
        "Min",
    }
    assert set(artifact.operators) <= known | shapes | others
    # P and c of a learned context are constants, so their product is stored and they are not
    stored = sum(onnx.numpy_helper.to_array(item).size for item in onnx.load(path).graph.initializer)
    folded = sum(pool.pool.p.numel() + pool.pool.c.numel() for pool in (model.marked, model.counted, model.zeros))
    assert stored < sum(parameter.numel() for parameter in model.parameters()) - folded + 60
