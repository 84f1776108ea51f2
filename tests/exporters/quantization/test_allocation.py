"""Bits within a budget."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.nn.bit_losses import losses_by_bits
from compressor.nn.integers import rows_to_nearest
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.surgery.second_order.bits import stored_bytes
from compressor.testing import RandomTask
from exporters.onnx import Options, export
from exporters.quantization.forms import bits

WORDS, UNITS = 97, 48
AXES = {0: "batch", 1: "time"}


class Net(nn.Module):
    """A table, an LSTM that decides the output, and a head of which most columns count for little."""

    def __init__(self):
        super().__init__()
        self.table, self.rnn = nn.Embedding(WORDS, 32), nn.LSTM(32, UNITS, batch_first=True)
        self.head, self.unheard = nn.Linear(UNITS, 40), nn.Linear(UNITS, 40)

    def forward(self, words):
        states = self.rnn(self.table(words))[0]
        return self.head(states) + 1e-3 * self.unheard(states)


def a_task():
    task = RandomTask({"words": AXES}, {"y": AXES}, lambda batch, length: (torch.randint(WORDS, (batch, length)),))
    task.batches = lambda generator: [((torch.randint(WORDS, (8, 17), generator=generator),), None)] * 2
    return task


def mixed(path, **rounding):
    torch.manual_seed(0)
    options = Options(precision="mixed", rounding={"max_error": 1.0, **rounding})
    return export(Job(Net().eval(), a_task(), path, options))


def chosen(artifact):
    return {matrix.name.removeprefix("step.model."): bits(matrix.form) for matrix in artifact.quantization.matrices}


@pytest.mark.parametrize("target", ["cpu", "anywhere"])
def test_what_counts_for_little_gets_fewer_bits_and_the_average_is_kept(tmp_path, target):
    artifact = mixed(tmp_path / "model.onnx", bits=5.5, quantize_for=target)
    found = chosen(artifact)
    assert found["unheard.weight"] < found["head.weight"]
    held = sum(matrix.bytes_after for matrix in artifact.quantization.matrices)
    numbers = sum(matrix.bytes_before for matrix in artifact.quantization.matrices) / 4
    assert 4.5 < 8 * held / numbers <= 5.5
    assert artifact.quantization.structure.passed
    assert all(matrix.errors for matrix in artifact.quantization.matrices if matrix.form != "float")


def test_the_file_has_at_most_the_bytes_that_were_given_and_more_bytes_are_nearer(tmp_path):
    errors = []
    for limit in (19_000, 26_000):
        artifact = mixed(tmp_path / "model.onnx", file_bytes=limit)
        assert 0.9 * limit < artifact.bytes == (tmp_path / "model.onnx").stat().st_size <= limit
        errors.append(artifact.quantization.error)
    assert errors[0] > 1.5 * errors[1]


def test_the_same_export_gives_the_same_file(tmp_path):
    files = [mixed(tmp_path / name, bits=4.5).sha256 for name in ("a.onnx", "b.onnx")]
    assert files[0] == files[1]


def test_the_step_file_has_the_bits_of_the_whole_file(tmp_path):
    torch.manual_seed(0)
    options = Options(precision="mixed", stream=True, rounding={"max_error": 1.0, "bits": 5.5})
    artifact = export(Job(Net().eval(), a_task(), tmp_path / "model.onnx", options))
    assert chosen(artifact) == chosen(artifact.step)
    assert artifact.step.quantization.structure.passed


def test_a_table_in_few_bits_is_looked_up_by_its_bytes(tmp_path):
    path = tmp_path / "model.onnx"
    artifact = mixed(path, bits=4.0, quantize_for="anywhere")
    assert chosen(artifact)["table.weight"] < 8
    assert not any(list(tensor.dims) == [WORDS, 32] for tensor in onnx.load(path).graph.initializer)
    words = torch.randint(WORDS, (3, 11))
    torch.manual_seed(0)
    wanted = Net().eval()(words)
    assert (OnnxFile(path)(words) - wanted).norm() < 0.5 * wanted.norm()


def rounded_before(bits):
    """The network with matrices that are integers times scales already, with clipping; the others are exact."""
    torch.manual_seed(0)
    net = Net().eval()
    for name, count in bits.items():
        weight = net.get_parameter(name)
        rows = rows_to_nearest(weight.detach().numpy(), count, weight.shape[1] if count == 8 else 32)
        with torch.no_grad():
            weight.copy_(torch.from_numpy(np.fix(rows.values / 2) * rows.scale_of_each))
    return net


BEFORE = {"rnn.weight_ih_l0": 5, "rnn.weight_hh_l0": 6, "head.weight": 8, "table.weight": 3}


def exported(net, path, **rounding):
    options = Options(precision="mixed", rounding={"max_error": 1.0, "quantize_for": "anywhere", **rounding})
    return export(Job(net, a_task(), path, options))


def test_matrices_that_were_rounded_in_training_keep_their_bits_and_integers(tmp_path):
    net, path = rounded_before(BEFORE), tmp_path / "model.onnx"
    artifact = exported(net, path, bits=7.9)  # more than they need
    found = chosen(artifact)
    # half of the integers of so many bits are those of a bit fewer
    assert {name: found[name] for name in BEFORE} == {name: max(2, count - 1) for name, count in BEFORE.items()} | {
        "head.weight": 8
    }
    assert "unheard.weight" in found
    words = torch.randint(WORDS, (3, 11))
    with torch.no_grad():
        wanted = net(words)
        net.unheard.weight.zero_()
        without = net(words)
    off = (OnnxFile(path)(words) - wanted).norm()
    assert off < 0.1 * (wanted - without).norm() + 1e-5 * wanted.norm()


def test_the_average_that_training_kept_is_enough_for_the_export(tmp_path):
    names = [name for name, item in Net().named_parameters() if item.dim() == 2]
    net = rounded_before(dict.fromkeys(names, 8))
    weights = [net.get_parameter(name) for name in names]
    held = sum(stored_bytes(weight.shape, 8, 32) for weight in weights)
    average = 8 * held / sum(weight.numel() for weight in weights)
    assert set(chosen(exported(net, tmp_path / "model.onnx", bits=average + 1e-6)).values()) == {8}


def test_a_budget_below_what_was_rounded_in_training_is_refused(tmp_path):
    net = rounded_before(BEFORE)
    with pytest.raises(ExportError, match="4 matrices were rounded before the export and keep their bits"):
        exported(net, tmp_path / "model.onnx", bits=3.0)


@pytest.mark.parametrize(
    ("rounding", "text"),
    [
        ({"bits": 2.0}, "cannot be so few"),
        ({"file_bytes": 1000}, "cannot be so few"),
        ({"bits": 4, "max_error": 1e-6}, "`max_error` is 1e-06"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused(tmp_path, rounding, text):
    with pytest.raises(ExportError, match=text):
        mixed(tmp_path / "model.onnx", **rounding)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"precision": "mixed"}, "needs a budget"),
        ({"precision": "mixed", "rounding": {"bits": 4, "file_bytes": 9}}, "needs a budget"),
        ({"precision": "int4", "rounding": {"bits": 4}}, "`bits` is an option of `precision: mixed`"),
        ({"precision": "mixed", "stream": True, "rounding": {"bits": 4, "quantize_for": "npu"}}, "have 8 bits"),
    ],
)
def test_budgets_belong_to_mixed_bits(given, text):
    with pytest.raises(ValueError, match=text):
        Options(**given)


def test_losses_go_through_what_was_measured_and_never_rise_with_the_bits():
    own = {32: 0.0, 16: 1e-6, 8: 1.0, 6: 16.0, 5: 64.0, 4: 256.0, 3: 1024.0, 2: 4096.0}
    losses = losses_by_bits({4: 0.4, 8: 0.1}, own)
    assert losses[4] == pytest.approx(0.16)
    assert losses[8] == pytest.approx(0.01)
    assert losses[32] == 0
    rising = [losses[count] for count in (32, 16, 8, 6, 5, 4, 3, 2)]
    assert rising == sorted(rising)
    upside_down = losses_by_bits({4: 0.1, 8: 0.4}, own)
    assert upside_down[4] >= upside_down[8]


OWN = {32: 0.0, 16: 1e-6, 8: 1.0, 6: 16.0, 5: 64.0, 4: 256.0, 3: 1024.0, 2: 4096.0}


@pytest.mark.parametrize("errors", [{4: 0.4, 8: 0.1}, {4: 0.9, 8: 0.001}, {4: 0.2, 8: 0.2}])
def test_losses_are_powers_of_a_matrix_own_error_between_and_parts_of_it_beyond(errors):
    losses, (low, high) = losses_by_bits(errors, OWN), (errors[4] ** 2, errors[8] ** 2)
    power = math.log(low / high) / math.log(256.0)
    wanted = {bits: high * OWN[bits] ** power for bits in (5, 6)}
    wanted |= {bits: low * OWN[bits] / 256.0 for bits in (2, 3, 4)}
    wanted |= {bits: high * OWN[bits] for bits in (8, 16, 32)}
    assert losses == pytest.approx(wanted)
    assert list(losses) == [32, 16, 8, 6, 5, 4, 3, 2]


@pytest.mark.parametrize(
    ("errors", "own", "wanted"),
    [
        ({4: 0.0, 8: 0.0}, OWN, dict.fromkeys(OWN, 0.0)),
        ({4: 0.2, 8: 0.0}, {8: 1.0, 6: 16.0, 4: 256.0}, {8: 0.0, 6: 0.0, 4: 0.04}),
        ({4: 0.2, 8: 0.1}, {8: 0.0, 6: 0.0, 4: 4.0, 3: 8.0}, {8: 0.0, 6: 0.0, 4: 0.04, 3: 0.08}),
        ({4: 0.2, 8: 0.1}, {8: 0.0, 6: 0.0, 4: 0.0, 3: 8.0}, {8: 0.0, 6: 0.0, 4: 0.0, 3: 0.0}),
        ({4: 0.1, 8: 0.2}, {8: 1.0, 6: 16.0, 4: 256.0}, {8: 0.04, 6: 0.04, 4: 0.04}),
        ({4: 0.2, 8: 0.1}, {8: 5.0, 6: 5.0, 4: 5.0}, {8: 0.01, 6: 0.01, 4: 0.04}),
    ],
    ids=["harmless", "harmless in 8", "exact in 8", "exact in 4", "upside down", "no better in 8"],
)
def test_losses_without_a_power(errors, own, wanted):
    assert losses_by_bits(errors, own) == pytest.approx(wanted)
