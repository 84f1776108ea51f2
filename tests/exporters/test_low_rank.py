"""Layers of factors export to what runs them without multiplying the factors out, right at sizes never seen."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.measure import macs
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.factorisation import Spectrum
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.exporters.conftest import features_task
from tests.exporters.packed import exported_packed
from tests.nets import Outputs
from tests.nn.recurrent.modes import MODES
from tests.tolerances import EXPORTED_FLOAT32

INPUT, HIDDEN, RANK = 5, 13, 3
TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}


def factored(mode, kinds, **options):
    module = MODES[mode](INPUT, HIDDEN, **options)
    chosen = {name: weight for name, weight in module.named_parameters() if name.startswith(kinds)}
    return LowRankRecurrent.from_module(module, {n: Spectrum(w).factors(RANK) for n, w in chosen.items()})


class Recurrent(nn.Module):
    """One-way layers with states given and taken, both ways without, and one unbatched sample."""

    def __init__(self, mode):
        super().__init__()
        self.pair = mode == "LSTM"
        self.streaming = factored(mode, ("weight_hh",), num_layers=2, batch_first=True)
        self.both = factored(mode, ("weight_hh_l1", "weight_ih"), num_layers=2, bidirectional=True)
        self.plain = factored(mode, ("weight_hh", "weight_ih"), bias=False, batch_first=True)

    def forward(self, features, *states):
        output, last = self.streaming(features, tuple(states) if self.pair else states[0])
        both, ends = self.both(features.transpose(0, 1))
        single, _ = self.both(features[0])
        ends = ends[0] if self.pair else ends
        kinds = last if self.pair else [last]
        return output, both, single, torch.cat([ends[-2], ends[-1]], -1), self.plain(features)[0], *kinds


def task_of(mode):
    count = 2 if mode == "LSTM" else 1
    names = [f"state_{index}" for index in range(count)]
    return RandomTask(
        {"features": TIMED} | {name: {1: "batch"} for name in names},
        {"output": TIMED, "both": {0: "time", 1: "batch"}, "single": {0: "time"}, "summary": LAST, "plain": TIMED}
        | {f"last_{name}": {1: "batch"} for name in names},
        lambda batch, length: (
            torch.randn(batch, length, INPUT),
            *(torch.randn(2, batch, HIDDEN) for _ in range(count)),
        ),
    )


@pytest.fixture(scope="module", params=MODES)
def recurrent(request, tmp_path_factory):
    torch.manual_seed(0)
    model, task = Recurrent(request.param).eval(), task_of(request.param)
    path = tmp_path_factory.mktemp("low_rank") / "model.onnx"
    return model, task, path, export(Job(model, task, path, Options())), request.param


def test_factored_layers_agree_with_pytorch_at_an_unseen_size(recurrent):
    model, task, path, artifact, _ = recurrent
    inputs = task.example(7, 23)
    assert_agrees(path, model, *inputs)
    assert artifact.parity.passed


def test_a_dense_recurrent_matrix_stays_a_native_node_and_factors_of_one_become_a_scan(recurrent):
    *_, artifact, mode = recurrent
    scans = 2 + 2 * 2 + 1  # streaming, layer 1 of both ways, called twice, and plain
    assert artifact.operators["Scan"] == scans
    assert artifact.operators[mode.partition("_")[0]] == 4  # layer 0 both ways, called twice
    assert not {"Loop", "SequenceAt"} & set(artifact.operators)


def test_factors_are_stored_as_they_are_and_nothing_twice(recurrent):
    model, *_, path, _, _ = recurrent
    graph = onnx.load(path).graph
    stored = sum(onnx.numpy_helper.to_array(item).size for item in graph.initializer)
    assert stored <= sum(parameter.numel() for parameter in model.parameters()) + 50
    for node in graph.node:
        if node.op_type == "Scan":
            (body,) = [item.g for item in node.attribute if item.name == "body"]
            assert sum(onnx.numpy_helper.to_array(item).size for item in body.initializer) < 10


@pytest.mark.parametrize("mode", ["GRU", "LSTM"])
@pytest.mark.parametrize("hidden", [7, 256])
def test_the_products_of_a_scan_are_counted_for_every_step(tmp_path, mode, hidden):
    torch.manual_seed(0)
    module = MODES[mode](INPUT, hidden, batch_first=True)
    layer = LowRankRecurrent.from_module(module, {"weight_hh_l0": Spectrum(module.weight_hh_l0).factors(RANK)})
    path = tmp_path / "model.onnx"
    export(Job(Outputs(layer), features_task({"y": TIMED}), path, Options()))
    rows = hidden * {"GRU": 3, "LSTM": 4}[mode]
    assert macs.count(path, [torch.randn(2, 11, INPUT)]) == 2 * 11 * (rows * INPUT + RANK * (hidden + rows))


@pytest.mark.parametrize("mode", ["GRU", "LSTM"])
def test_packed_sequences_end_at_their_lengths(tmp_path, mode):
    layer = factored(mode, ("weight_hh",), num_layers=2, bidirectional=True, batch_first=True)
    assert exported_packed(layer, INPUT, tmp_path / "model.onnx").operators["Scan"] == 4


def test_a_linear_layer_of_factors_is_two_products(tmp_path):
    torch.manual_seed(0)
    linear = nn.Linear(INPUT, 11)
    layer, path = LowRankLinear.from_linear(linear, Spectrum(linear.weight).factors(RANK)), tmp_path / "model.onnx"
    artifact = export(Job(layer, features_task({"y": TIMED}), path, Options()))
    assert artifact.operators.get("MatMul", 0) + artifact.operators.get("Gemm", 0) == 2
    assert macs.count(path, [torch.randn(2, 7, INPUT)]) == 14 * RANK * (INPUT + 11)


class Step(nn.Module):
    """One step of a stream, its state handed on."""

    def __init__(self, mode):
        super().__init__()
        self.rnn = factored(mode, ("weight_hh", "weight_ih_l1"), num_layers=2, batch_first=True)

    def forward(self, features, *states):
        output, last = self.rnn(features, tuple(states) if self.rnn.mode == "LSTM" else states[0])
        return (output, *last) if self.rnn.mode == "LSTM" else (output, last)


@pytest.mark.parametrize("mode", MODES)
def test_a_graph_of_one_step_has_no_loop_and_carries_the_states_on(tmp_path, mode):
    names = ["h", "c"] if mode == "LSTM" else ["h"]
    task = RandomTask(
        {"features": TIMED} | {name: {1: "batch"} for name in names},
        {"output": TIMED} | {f"next_{name}": {1: "batch"} for name in names},
        lambda batch, _: (torch.randn(batch, 1, INPUT), *(torch.randn(2, batch, HIDDEN) for _ in names)),
        length=1,
        max_length=1,
    )
    torch.manual_seed(0)
    model, path = Step(mode).eval(), tmp_path / "model.onnx"
    artifact = export(Job(model, task, path, Options()))
    assert not {"Scan", "Loop", "RNN", "GRU", "LSTM"} & set(artifact.operators)
    file, sequence = OnnxFile(path), torch.randn(3, 19, INPUT)
    states = [torch.zeros(2, 3, HIDDEN) for _ in names]
    outputs = []
    for step in sequence.split(1, dim=1):
        output, *states = file(step, *states)
        outputs.append(output)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(outputs, 1), model.rnn(sequence)[0], **EXPORTED_FLOAT32)


@pytest.mark.parametrize("opset", [17, 23])
def test_a_scan_is_written_in_other_opsets_too(tmp_path, opset):
    torch.manual_seed(0)
    layer = Outputs(factored("GRU", ("weight_hh",), batch_first=True)).eval()
    artifact = export(
        Job(layer, features_task({"y": TIMED}), tmp_path / "model.onnx", Options(opset=opset, ir_version=10))
    )
    assert (artifact.opset, artifact.operators["Scan"]) == (opset, 1)
