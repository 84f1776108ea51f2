"""Recurrent layers of two layers and directions over sequences of several lengths, as files."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.formats import Job
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees

TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}


class Packed(nn.Module):
    """Gives the outputs and, of the last layer, all states that both directions end with."""

    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, features, lengths):
        packed, last = self.rnn(pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False))
        output, _ = pad_packed_sequence(packed, batch_first=True)
        states = last if self.rnn.mode == "LSTM" else (last,)
        return output, torch.cat([state[place] for state in states for place in (-2, -1)], -1)


def exported_packed(rnn, inputs, path):
    """The facts about the file, which agrees with the layer at lengths of its own."""
    task = RandomTask(
        {"features": TIMED, "lengths": LAST},
        {"output": {0: "batch", 1: "longest"}, "last": LAST},
        lambda batch, length: (torch.randn(batch, length, inputs), random_lengths(batch, length)),
    )
    model = Packed(rnn).eval()
    artifact = export(Job(model, task, path, Options()))
    features, lengths = torch.randn(5, 17, inputs), torch.tensor([3, 11, 1, 7, 2])
    assert_agrees(path, model, features, lengths)
    return artifact
