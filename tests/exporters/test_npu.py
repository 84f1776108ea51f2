"""`quantize_for: npu`: calibrated pairs around everything, and proof that the file still computes the model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from pydantic import ValidationError
from torch import nn

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.nn.integers import to_8_bits
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import survey
from compressor.runtimes.forward import open_forward
from compressor.runtimes.steps import Steps
from compressor.surgery.second_order.table import fill
from compressor.task.fixed_axes import fixed
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from exporters.onnx_files.step import step_path
from exporters.quantization.calibration import calibration
from tests.exporters.conftest import KINDS
from tests.nets import First

INPUT, HIDDEN, TIME = 5, 7, 4
SHAPES = {"batch": 1, "time": TIME}
COMPUTES = {"Add", "Gemm", "LayerNormalization", "MatMul", "Mul", "Relu", "Sigmoid", "Softmax", "Sub", "Tanh"}


class Net(nn.Module):
    def __init__(self, cls, extra):
        super().__init__()
        self.rnn = cls(INPUT, HIDDEN, num_layers=2, bidirectional=True, batch_first=True, **extra)
        self.head = nn.Linear(2 * HIDDEN, 3)

    def forward(self, features):
        output, last = self.rnn(features)
        last = torch.cat(last) if isinstance(last, tuple) else last
        return self.head(output), last.transpose(0, 1)


def npu_task(outputs=None, batches=None, **attributes):
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}},
        outputs or {"scores": {0: "batch", 1: "time"}, "last": {0: "batch"}},
        lambda batch, length: (torch.randn(batch, length, INPUT),),
        **attributes,
    )
    given = [(torch.randn(8, TIME, INPUT, generator=torch.Generator().manual_seed(i)),) for i in range(3)]
    task.batches = lambda generator: [(inputs, None) for inputs in (given if batches is None else batches)]
    return task


SCORES = {"scores": {0: "batch", 1: "time"}}


def npu(**rounding):
    """Options of rounding."""
    return {"quantize_for": "npu", "calibration_samples": 12, **rounding}


def quantized(tmp_path, model, task, *, shapes=SHAPES, opset=18, **rounding):
    path = tmp_path / "model.onnx"
    options = Options(precision="int8", shapes=shapes, opset=opset, rounding=npu(**rounding))
    return export(Job(model.eval(), task, path, options)), path


def forms(artifact):
    return {matrix.name: matrix.form for matrix in artifact.quantization.matrices}


def float_inputs(path):
    """Operators that compute, each with the inputs that are neither integers made float nor float constants."""
    graph = onnx.load(path).graph
    made = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    whole = {value.name for value in graph.input if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT}
    nodes = [node for node in graph.node if node.op_type in COMPUTES]
    return {node.op_type: set(node.input) - made - whole for node in nodes if set(node.input) - made - whole}


@pytest.mark.parametrize("kind", KINDS)
def test_a_recurrent_model_is_in_integers_throughout_and_computes_what_they_say(tmp_path, kind):
    torch.manual_seed(0)
    model = Net(*KINDS[kind])
    artifact, path = quantized(tmp_path, model, npu_task())
    assert artifact.quantization.structure.passed
    assert set(forms(artifact).values()) == {"static"}
    assert not {"RNN", "GRU", "LSTM"} & set(artifact.operators)
    assert float_inputs(path) == {}
    found = survey(onnx.load(path), targets.get("qnn"))
    assert (found.taken, found.partitions) == (found.nodes, 1)
    features = torch.randn(4, TIME, INPUT)
    with torch.no_grad():
        for ours, theirs in zip(open_forward(path, npu_task())(features), model(features), strict=True):
            assert (ours - theirs).norm() / theirs.norm() < 0.1


class WithLengths(nn.Module):
    def __init__(self, cls):
        super().__init__()
        self.rnn = cls(INPUT, HIDDEN, batch_first=True)
        self.first = nn.Parameter(torch.randn(1, 1, HIDDEN))

    def forward(self, features, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        first = self.first.expand(1, features.shape[0], HIDDEN)
        output, _ = self.rnn(packed, (first, -first) if isinstance(self.rnn, nn.LSTM) else first)
        return nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])[0]


@pytest.mark.parametrize("cls", [nn.GRU, nn.LSTM])
def test_padding_and_initial_states_survive(tmp_path, cls):
    torch.manual_seed(0)
    task = npu_task(SCORES, [(torch.randn(8, TIME, INPUT), random_lengths(8, TIME))])
    task.inputs = {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    task._example = lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length))
    artifact, path = quantized(tmp_path, WithLengths(cls), task)
    assert artifact.quantization.structure.passed
    output = open_forward(path, task)(torch.randn(1, TIME, INPUT), torch.tensor([3]))
    assert not output[0, 3:].any()
    assert output[0, 2].any()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.enter, self.encoder = nn.Linear(INPUT, 8), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, features):
        mask = nn.Transformer.generate_square_subsequent_mask(features.shape[1])
        return self.encoder(self.enter(features), mask=mask, is_causal=True)


def test_a_mask_leaves_the_scores_their_scale(tmp_path):
    torch.manual_seed(0)
    artifact, path = quantized(tmp_path, Attention(), npu_task(SCORES))
    assert forms(artifact)["operators.Softmax"] == forms(artifact)["operators.Add"] == "static"
    assert float_inputs(path) == {}
    assert artifact.quantization.error < 0.05
    assert all(point.within for point in artifact.quantization.deviation)


def test_operators_without_a_matrix_can_be_kept_in_float(tmp_path):
    artifact, _ = quantized(tmp_path, Attention(), npu_task(SCORES), keep_float=["operators.Soft*"])
    kept = next(matrix for matrix in artifact.quantization.matrices if matrix.name == "operators.Softmax")
    assert (kept.form, kept.note, kept.bytes_before) == ("float", "`keep_float: operators.Soft*`", 0)
    with pytest.raises(ExportError, match=r"`keep_float: operators.Sort` fits no matrix"):
        quantized(tmp_path, Attention(), npu_task(SCORES), keep_float=["operators.Sort"])


def test_16_bits_are_closer_than_8_and_the_opset_has_them(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.GRU(INPUT, HIDDEN, batch_first=True), First())
    coarse, _ = quantized(tmp_path, model, npu_task(SCORES))
    fine, path = quantized(tmp_path, model, npu_task(SCORES), activations="uint16", opset=21)
    assert fine.quantization.error < 0.5 * coarse.quantization.error
    kinds = {tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert onnx.TensorProto.UINT16 in kinds
    assert [entry.domain for entry in onnx.load(path).opset_import] == [""]


def weight_of(path, name):
    tensors = {tensor.name: to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    node = next(node for node in onnx.load(path).graph.node if node.input[0] == f"{name}_quantized")
    return tensors[node.input[0]], tensors[node.input[1]]


def test_integers_of_second_order_are_those_of_the_model_whatever_the_form(tmp_path):
    torch.manual_seed(0)
    model, task = nn.Sequential(nn.Linear(INPUT, 40), nn.ReLU(), nn.Linear(40, 3)).eval(), npu_task(SCORES)
    artifact, path = quantized(tmp_path, model, task)
    seen = calibration(fixed(task, SHAPES), 12, 0, real=True).seen
    table, weight = fill(model, seen, bits=lambda *_: (8,), block=32), model[2].weight.detach().numpy()
    assert all(matrix.second_order == 1 for matrix in artifact.quantization.matrices if matrix.shape)
    values, _ = weight_of(path, "2.weight")
    np.testing.assert_array_equal(values.T, [table.find(row, 8)[0] for row in weight])
    assert not np.array_equal(values.T, to_8_bits(weight, (0,)).values)


def test_the_integers_are_those_of_every_other_form(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUT, 11), nn.ReLU(), nn.Linear(11, 3))
    _, path = quantized(tmp_path, model, npu_task(SCORES), method="nearest")
    values, scale = weight_of(path, "2.weight")
    wanted = to_8_bits(model[2].weight.detach().numpy().T, (1,))
    np.testing.assert_array_equal(values, wanted.values)
    np.testing.assert_array_equal(scale, wanted.scale.ravel())
    _, path = quantized(tmp_path, model, npu_task(SCORES), per_channel=False, method="nearest")
    assert weight_of(path, "2.weight")[1].shape == ()


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(61, 8), nn.Linear(8, 3)

    def forward(self, words):
        return self.out(self.table(words))


@pytest.mark.parametrize("more", [{}, {"activations": "uint16", "opset": 21}])
def test_a_table_has_the_type_of_activations(tmp_path, more):
    torch.manual_seed(0)
    task = npu_task(SCORES, [(torch.randint(0, 61, (8, TIME)),)])
    task.inputs = {"words": {0: "batch", 1: "time"}}
    task._example = lambda batch, length: (torch.randint(0, 61, (batch, length)),)
    artifact, path = quantized(tmp_path, Words(), task, **more)
    assert weight_of(path, "table.weight")[0].dtype == more.get("activations", "uint8")
    assert artifact.quantization.structure.passed
    assert artifact.quantization.matrices[0].bytes_after == 61 * 8 * (2 if more else 1) + 4


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_ranges_by_each_way_of_calibration(tmp_path, calibration):
    torch.manual_seed(0)
    spiky = torch.randn(8, TIME, INPUT)
    spiky[0, 0, 0] = 40.0
    model = nn.Sequential(nn.Linear(INPUT, 11), nn.Tanh(), nn.Linear(11, 3))
    artifact, path = quantized(tmp_path, model, npu_task(SCORES, [(spiky,)]), calibration=calibration, max_error=0.5)
    assert artifact.quantization.calibration == calibration
    graph = onnx.load(path).graph
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "features")
    scale = float(next(to_array(tensor) for tensor in graph.initializer if tensor.name == first.input[1]))
    assert (scale > 40 / 256) == (calibration != "entropy")


def test_a_state_has_one_scale_and_its_layer_one_set_of_biases(tmp_path):
    torch.manual_seed(0)
    _, path = quantized(tmp_path, nn.Sequential(nn.LSTM(INPUT, HIDDEN, batch_first=True), First()), npu_task(SCORES))
    graph = onnx.load(path).graph
    whole = [to_array(tensor) for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT32]
    assert [array.shape for array in whole if array.any()] == [(4 * HIDDEN,)]


class Constant(nn.Module):
    """One of what it adds is the same number for every input, another one is zero."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(INPUT, 3)

    def forward(self, features):
        flat = features.abs().clamp(max=0.0)
        return self.head(features) + flat.mean(2, keepdim=True) + torch.sigmoid(flat).mean(2, keepdim=True)


def test_activations_that_never_change_have_a_scale(tmp_path):
    torch.manual_seed(0)
    artifact, path = quantized(tmp_path, Constant(), npu_task(SCORES))
    scales = {node.input[1] for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"}
    found = [to_array(tensor) for tensor in onnx.load(path).graph.initializer if tensor.name in scales]
    assert all(np.isfinite(scale).all() and (scale > 0).all() for scale in found)
    assert artifact.quantization.error < 0.05


class Outlier(nn.Module):
    """A layer whose inputs span five orders of magnitude, which no scale of 8 bits holds, and another one."""

    def __init__(self):
        super().__init__()
        self.wide, self.rnn = nn.GRU(INPUT, HIDDEN, batch_first=True), nn.GRU(HIDDEN, HIDDEN, batch_first=True)
        with torch.no_grad():
            self.wide.weight_ih_l0[:, 1:] *= 1000

    def forward(self, features):
        spread = torch.cat([features[..., :1] * 1000, features[..., 1:] * 1e-3], -1)
        return self.rnn(self.wide(spread)[0])[0]


def test_the_harmful_layer_stays_a_native_node(tmp_path):
    torch.manual_seed(0)
    artifact, _ = quantized(tmp_path, Outlier(), npu_task(SCORES), max_error=0.08, keep_float=["operators.Mul"])
    found = forms(artifact)
    assert {found["rnn.weight_ih_l0"], found["rnn.weight_hh_l0"]} == {"static"}
    assert "static" not in {found["wide.weight_ih_l0"], found["wide.weight_hh_l0"]}
    assert artifact.operators["GRU"] == 1
    assert artifact.quantization.structure.passed
    notes = {matrix.name: matrix.note for matrix in artifact.quantization.matrices}
    assert "relative output error" in notes["wide.weight_ih_l0"]
    assert "the other matrix" in notes["wide.weight_hh_l0"]
    assert "plain operations" in notes["rnn.weight_hh_l0"]


def test_the_metric_decides_where_it_is_limited(tmp_path):
    torch.manual_seed(0)
    task, model = npu_task(SCORES), Attention().eval()
    features = torch.randn(8, TIME, INPUT)
    wanted = model(features).detach()
    task.evaluate = lambda forward: 1 - float((forward(features) - wanted).norm() / wanted.norm())
    options = Options(precision="int8", shapes=SHAPES, rounding=npu(max_error=1.0))
    free = export(Job(model, task, tmp_path / "model.onnx", options, metric_drop=1.0)).quantization
    tight = export(Job(model, task, tmp_path / "model.onnx", options, metric_drop=0.6 * free.metric_drop)).quantization
    assert tight.metric_drop <= tight.metric_drop_allowed < free.metric_drop
    assert "static" in {matrix.form for matrix in tight.matrices if matrix.shape}
    assert any("left of the recipe's limit on it" in matrix.note for matrix in tight.matrices)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "give no data to calibrate with"),
        ([(torch.full((2, TIME, INPUT), float("nan")),)], "NaN or infinity in `features`"),
        (
            [(torch.zeros(2, 3, INPUT),), (torch.zeros(2, 5, INPUT),)],
            "no batch .* has the sizes of `shapes`.*time 3, time 5",
        ),
    ],
)
def test_data_that_nothing_can_be_calibrated_with_is_refused(tmp_path, batches, message):
    with pytest.raises(ExportError, match=message):
        quantized(tmp_path, Net(*KINDS["GRU"]), npu_task(batches=batches))
    assert list(tmp_path.iterdir()) == []


class Logarithm(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(INPUT, 3)

    def forward(self, features):
        return self.head(torch.log(features.abs()).clamp(min=-9.0))


def test_what_becomes_infinite_on_the_calibration_data_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"is not finite on the calibration data \(-inf to ") as caught:
        quantized(tmp_path, Logarithm(), npu_task(SCORES, [(torch.zeros(2, TIME, INPUT),)]))
    assert "`batches`" in caught.value.hint


def test_an_open_axis_is_refused(tmp_path):
    with pytest.raises(ExportError, match="axis `batch` of the input `features` is open"):
        quantized(tmp_path, Net(*KINDS["GRU"]), npu_task(), shapes={"time": TIME})


@pytest.mark.parametrize(
    ("options", "rounding", "message"),
    [
        ({"shapes": {}}, {}, "NPUs take fixed shapes only"),
        ({}, {"activations": "uint16"}, "`activations: uint16` needs `opset: 21` or newer, not 18"),
        ({"precision": "int4"}, {}, "accelerators have 8 bits"),
        ({}, {"quantize_for": "cpu", "calibration": "entropy"}, "`calibration` is an option of `quantize_for: npu`"),
        ({"precision": "float32"}, {"per_channel": False}, "`rounding` needs integers to round to"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, rounding, message):
    with pytest.raises(ValidationError, match=message):
        Options(**{"precision": "int8", "shapes": SHAPES, "rounding": npu(**rounding), **options})


def test_a_step_file_in_calibrated_integers_hands_its_states_on_at_one_scale(tmp_path):
    torch.manual_seed(0)
    model, path = nn.Sequential(nn.GRU(INPUT, HIDDEN, batch_first=True), First()).eval(), tmp_path / "model.onnx"
    options = Options(precision="int8", stream=True, rounding=npu())
    artifact = export(Job(model, npu_task(SCORES), path, options))
    assert artifact.quantization is None
    assert "step file is the one" in artifact.notes[0]
    assert set(forms(artifact.step).values()) == {"static"}
    assert float_inputs(step_path(path)) == {}
    nodes = onnx.load(step_path(path)).graph.node
    (state,) = artifact.step.stream.states
    first = next(node for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] == state.name)
    last = next(node for node in nodes if state.next_name in node.output)
    assert (last.op_type, *last.input[1:]) == ("DequantizeLinear", *first.input[1:])
    features = torch.randn(3, 9, INPUT)
    with torch.no_grad():
        ours, theirs = Steps(step_path(path))(features), model(features)
    assert (ours - theirs).norm() / theirs.norm() < 0.1


def test_a_state_that_grows_is_refused(tmp_path):
    options = Options(precision="int8", stream=True, rounding=npu())
    with pytest.raises(ExportError, match=r"axis `past` of the input .* is open") as caught:
        export(Job(Attention().eval(), npu_task(SCORES), tmp_path / "model.onnx", options))
    assert "a state that grows" in caught.value.hint


def test_integers_within_fixed_sizes_for_the_cpu_too(tmp_path):
    torch.manual_seed(0)
    task = npu_task(SCORES)
    path = tmp_path / "model.onnx"
    model = nn.Sequential(nn.Linear(INPUT, 64), nn.ReLU(), nn.Linear(64, 3)).eval()
    artifact = export(Job(model, task, path, Options(precision="int8", shapes=SHAPES)))
    assert artifact.inputs[0].shape == (1, TIME, INPUT)
    assert "integer" in forms(artifact).values()
