from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import OutputError
from compressor.formats import Job
from compressor.nn.integers import rows_to_nearest
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from compressor.surgery.second_order import table
from compressor.testing import RandomTask
from compressor.training.rounding import Rounding
from exporters.onnx import Options, export
from exporters.onnx_files.step import step_path

FEATURES, UNITS = 12, 20
AXES = {0: "batch", 1: "time"}


class Net(nn.Module):
    def __init__(self, units=UNITS):
        super().__init__()
        self.rnn, self.head = nn.LSTM(FEATURES, units, 2, batch_first=True), nn.Linear(units, 30)

    def forward(self, features):
        return self.head(self.rnn(features)[0])


def correlated(seed, batch, length):
    """Features of which few directions are large, as of real data."""
    draws = torch.Generator().manual_seed(seed)
    mixed = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(9))
    return torch.randn(batch, length, FEATURES, generator=draws) * 2.0 ** -torch.arange(FEATURES) @ mixed


def a_task(*, batches=True):
    task = RandomTask({"features": AXES}, {"scores": AXES}, lambda batch, length: (correlated(1, batch, length),))
    task.batches = lambda generator: [((correlated(seed, 16, 20),), None) for seed in (2, 3) if batches]
    return task


def write(path, model, **options):
    return export(Job(model, a_task(), path, Options(**options)))


def integers(path):
    """Of every matrix of 8 bits."""
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return [array.tobytes() for array in arrays if array.dtype == np.int8 and array.size > 200]


def test_outputs_are_nearer_than_with_every_weight_to_the_nearest(tmp_path):
    torch.manual_seed(0)
    model, errors = Net(96), {}
    for precision in ("int8", "int4"):
        for method in ("second_order", "nearest"):
            rounding = {"quantize_for": "anywhere"} if precision == "int8" else {}
            rounding |= {"method": method, "max_error": 0.5}
            artifact = write(tmp_path / f"{method}.onnx", model, precision=precision, rounding=rounding)
            assert artifact.quantization.method == method
            assert "int4" not in precision or any(matrix.form == "int4" for matrix in artifact.quantization.matrices)
            errors[precision, method] = artifact.quantization.error
    assert errors["int8", "second_order"] < 0.7 * errors["int8", "nearest"]
    assert errors["int4", "second_order"] < 0.7 * errors["int4", "nearest"]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_step_file_computes_what_the_whole_file_does(precision, tmp_path):
    torch.manual_seed(1)
    rounding = {"max_error": 0.9} | ({"quantize_for": "anywhere"} if precision == "int8" else {})
    write(tmp_path / "net.onnx", Net(), precision=precision, stream=True, rounding=rounding)
    features = correlated(6, 2, 15)
    whole = OnnxFile(tmp_path / "net.onnx").run({"features": features.numpy()})[0]
    steps = Steps(step_path(tmp_path / "net.onnx"))(features)
    np.testing.assert_allclose(np.asarray(steps), whole, atol=1e-4 if precision == "int8" else 0.05)


def test_the_same_export_gives_the_same_bytes(tmp_path):
    torch.manual_seed(2)
    model = Net()
    for name in ("a", "b"):
        write(tmp_path / f"{name}.onnx", model, precision="int8")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_weights_that_training_rounded_keep_their_integers(tmp_path):
    torch.manual_seed(3)
    model = Net()
    Rounding(model, "int8").keep()
    for method in ("second_order", "nearest"):
        write(tmp_path / f"{method}.onnx", model, precision="int8", rounding={"method": method})
    assert integers(tmp_path / "second_order.onnx") == integers(tmp_path / "nearest.onnx")


def test_without_training_data_every_weight_goes_to_the_nearest(tmp_path):
    task = a_task(batches=False)
    artifact = export(Job(Net(), task, tmp_path / "net.onnx", Options(precision="int8")))
    assert artifact.quantization.method == "nearest"


def test_later_matrices_are_rounded_on_what_earlier_ones_give(monkeypatch):
    torch.manual_seed(4)
    seen = []

    def spy(operand, weight, moment):
        seen.append((operand.parameter, moment))
        return original(weight, moment, 4, 16)

    original = table.second_order
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Linear(8, 3))
    batch = correlated(5, 4, 10)
    copied = table.one_by_one(model, [(batch,)], spy)
    assert [name for name, _ in seen] == ["0.weight", "1.weight"]
    hidden = copied[0](batch).detach().double().flatten(0, 1)
    np.testing.assert_allclose(seen[1][1], (hidden.T @ hidden / len(hidden)).numpy(), rtol=1e-5)
    assert not torch.equal(copied[0].weight, model[0].weight)


def test_rows_with_inputs_that_are_not_finite_are_left_to_the_nearest():
    class Logarithm(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.out = nn.Linear(FEATURES, 8), nn.Linear(8, 3)

        def forward(self, features):
            return self.out(torch.log(torch.relu(self.enter(features))))

    model = Logarithm().eval()
    filled = table.fill(model, [(correlated(7, 4, 10),)], bits=lambda *_: (8,), block=32)
    assert filled.find(model.enter.weight.detach().numpy()[0], 8) is not None
    assert filled.find(model.out.weight.detach().numpy()[0], 8) is None


def test_rows_are_found_as_they_were_taken_in_whichever_matrix_was_asked_for_before():
    random, known = np.random.default_rng(0), table.RowTable()
    weights = [random.normal(size=shape).astype(np.float32) for shape in ((5, 7), (3, 67), (2, 7))]
    weights[2][0] = weights[0][4]  # of equal rows the first counts
    rows = {(index, bits): rows_to_nearest(weight, bits, 32) for index, weight in enumerate(weights) for bits in (8, 4)}
    for (index, bits), rounded in rows.items():
        known.add(weights[index], rounded, bits)
    for place in (4, 0, 2):
        for index, bits in rows:
            if place < len(weights[index]) and (index, place) != (2, 0):
                values, scale = known.find(weights[index][place], bits)
                np.testing.assert_array_equal(values, rows[index, bits].values[place])
                np.testing.assert_array_equal(scale, rows[index, bits].scale[place])
    values, _ = known.find(weights[2][0], 4)
    np.testing.assert_array_equal(values, rows[0, 4].values[4])
    assert known.find(weights[0][0], 6) is None
    assert known.find(weights[0][0] + 1, 8) is None


def test_a_table_holds_no_integers_of_a_matrix_in_memory():
    weight, known = np.random.default_rng(0).normal(size=(30, 70)).astype(np.float32), table.RowTable()
    rows = rows_to_nearest(weight, 4, 32)
    held = weakref.ref(rows)
    known.add(weight, rows, 4)
    del rows
    assert held() is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full, which Linux has")
def test_a_full_temporary_folder_is_named(monkeypatch):
    known, weight = table.RowTable(), np.ones((3, 5), np.float32)
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr(known, "_file", full)
        with pytest.raises(OutputError, match="cannot write"):
            known.add(weight, rows_to_nearest(weight, 8, 5), 8)
