from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import rnn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export

INPUT = HIDDEN = 5


class Packed(nn.Module):
    """Unsorted lengths, a packed sequence through two layers, and the usual ways to read the result."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(INPUT, HIDDEN, 2, bidirectional=True, batch_first=True)
        self.lstm = nn.LSTM(2 * HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 3)

    def forward(self, features, lengths):
        packed, gru_last = self.gru(pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False))
        assert isinstance(packed, rnn.PackedSequence)
        packed, (_, cell) = self.lstm(packed)
        output, lengths = pad_packed_sequence(packed, batch_first=True)
        scores = self.head(output)
        mask = (torch.arange(output.size(1)) < lengths[:, None])[..., None]
        mean = (scores * mask).sum(1) / lengths[:, None]
        at_last_step = output[torch.arange(output.size(0)), lengths - 1]
        return output, gru_last, cell, mean, at_last_step, lengths


class Repacked(nn.Module):
    """Sorted lengths, time first: what is unpacked is added, packed again, and padded in every way."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(INPUT, HIDDEN)

    def forward(self, features, lengths):
        def through(x, **options):
            packed = rnn.pack_padded_sequence(x, lengths)
            return rnn.pad_packed_sequence(self.rnn(packed)[0], **options)[0]

        first = through(features)
        second = through(first) + first
        return (
            second,
            through(second, padding_value=-2.5),
            through(second, total_length=features.size(0)),
            through(second, total_length=features.size(0) + 3, padding_value=1.5),
            rnn.pad_packed_sequence(rnn.pack_padded_sequence(features, lengths))[0],
        )


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    torch.manual_seed(0)
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
        {
            "output": {0: "batch", 1: "longest"},
            "gru_last": {1: "batch"},
            "cell": {1: "batch"},
            "mean": {0: "batch"},
            "at_last_step": {0: "batch"},
            "valid": {0: "batch"},
        },
        lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length)),
    )
    model, path = Packed().eval(), tmp_path_factory.mktemp("packed") / "packed.onnx"
    return model, path, export(Job(model, task, path, Options()))


def test_unsorted_lengths_agree_with_pytorch_and_trim_to_the_longest(packed):
    model, path, _ = packed
    features, lengths = torch.randn(5, 17, INPUT), torch.tensor([3, 11, 1, 7, 2])
    with torch.no_grad():
        expected = model(features, lengths)
    found = OnnxFile(path)(features, lengths)
    assert found[0].shape == (5, 11, HIDDEN)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_what_lies_past_the_lengths_has_no_influence(packed):
    _, path, _ = packed
    features, lengths = torch.randn(3, 13, INPUT), torch.tensor([2, 7, 5])
    file = OnnxFile(path)
    before = file(features, lengths)
    features[torch.arange(13) >= lengths[:, None]] = 1e6
    torch.testing.assert_close(file(features, lengths), before, atol=0, rtol=0)


def test_an_input_that_is_handed_through_keeps_both_names(packed):
    *_, artifact = packed
    assert [value.name for value in artifact.inputs] == ["features", "lengths"]
    assert artifact.outputs[-1].name == "valid"
    assert artifact.outputs[0].shape == ("batch", "longest", HIDDEN)


def test_repacking_residuals_and_every_padding_agree_with_pytorch(tmp_path):
    def example(batch, length):
        lengths = random_lengths(batch, length).sort(descending=True).values
        lengths[0] = length
        return torch.randn(length, batch, INPUT), lengths

    task = RandomTask(
        {"features": {0: "time", 1: "batch"}, "lengths": {0: "batch"}},
        {name: {0: "time", 1: "batch"} for name in ("residual", "padded", "total", "longer", "straight")},
        example,
    )
    artifact = export(Job(Repacked(), task, tmp_path / "model.onnx", Options()))
    assert artifact.parity.passed
    assert artifact.operators["RNN"] == 3  # the last three are one computation, padded differently


def test_the_packing_functions_are_as_before_after_an_export(packed):
    batch = rnn.pack_padded_sequence(torch.randn(7, 2, INPUT), torch.tensor([7, 3]))
    assert type(batch) is rnn.PackedSequence
    assert rnn.pad_packed_sequence(batch)[0].shape == (7, 2, INPUT)


class Reader(nn.Module):
    def forward(self, features, lengths):
        return pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False).data


class Lister(nn.Module):
    def forward(self, features, lengths):
        packed = pack_padded_sequence(features, lengths.tolist(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(packed)[0]


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (Reader(), "reads `data` of a PackedSequence, which cannot be exported", "call pad_packed_sequence first"),
        (Lister(), "is given its lengths as a list, which fixes the batch size", "without `.tolist()`"),
    ],
)
def test_packing_that_cannot_be_exported_is_refused_with_the_remedy(tmp_path, model, message, hint):
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
        {"data": {}},
        lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length)),
    )
    with pytest.raises(ExportError, match=message) as caught:
        export(Job(model, task, tmp_path / "model.onnx", Options()))
    assert hint in str(caught.value.hint)
    assert rnn.pack_padded_sequence(torch.randn(3, 2, 1), torch.tensor([3, 1])).data.shape == (4, 1)
