"""Random models of recurrent layers, attention, convolutions, packed sequences and given states, in every opset."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.formats import Job
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.exporters.conftest import FEW_EXPORTS

INPUT, WIDTH = 5, 8
TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}
RECURRENT = {"rnn": nn.RNN, "relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM, "projected": nn.LSTM}


class Recurrent(nn.Module):
    """A layer, two layers or two directions; packed, or from a state that is an input of the model."""

    def __init__(self, kind, layers, both, packed, started):
        super().__init__()
        options = {"relu": {"nonlinearity": "relu"}, "projected": {"proj_size": 3}}.get(kind, {})
        self.rnn = RECURRENT[kind](WIDTH, 6, layers, bidirectional=both, batch_first=True, **options)
        self.packed, self.started, self.pair = packed, started, kind in ("lstm", "projected")
        self.sizes = [3 if kind == "projected" else 6, 6]
        self.out = nn.Linear(self.sizes[0] * (2 if both else 1), WIDTH)

    def forward(self, x, lengths, start):
        state = None
        if self.started:
            rows = self.rnn.num_layers * (2 if self.rnn.bidirectional else 1)
            states = [start[None, :, :size].expand(rows, -1, -1).contiguous() for size in self.sizes]
            state = tuple(states) if self.pair else states[0]
        if not self.packed:
            return x + self.out(self.rnn(x, state)[0])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y = pad_packed_sequence(self.rnn(packed, state)[0], batch_first=True, total_length=x.size(1))[0]
        return x + self.out(y)


class Attention(nn.Module):
    """An encoder layer, or attention alone, causal or with the padding hidden."""

    def __init__(self, whole, causal):
        super().__init__()
        self.whole, self.causal = whole, causal
        if whole:
            self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 11, batch_first=True, norm_first=causal)
        else:
            self.layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x, lengths, start):
        mask, hidden = None, torch.arange(x.size(1)) >= lengths[:, None]
        if self.causal:
            mask, hidden = nn.Transformer.generate_square_subsequent_mask(x.size(1)), None
        if self.whole:
            return self.layer(x, src_mask=mask, src_key_padding_mask=hidden, is_causal=self.causal)
        return x + self.layer(x, x, x, attn_mask=mask, key_padding_mask=hidden, need_weights=False)[0]


class Convolution(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, x, lengths, start):
        return self.norm(self.conv(x.transpose(1, 2))).relu().transpose(1, 2)


class Composed(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.given, self.blocks = nn.Linear(INPUT, WIDTH), nn.ModuleList(blocks)

    def forward(self, features, lengths, start):
        x = self.given(features)
        for block in self.blocks:
            x = block(x, lengths, start)
        return x, x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, WIDTH)).squeeze(1)


TASK = RandomTask(
    {"features": TIMED, "lengths": LAST, "start": LAST},
    {"y": TIMED, "last": LAST},
    lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length), torch.randn(batch, 6)),
)
BLOCKS = st.one_of(
    st.builds(
        lambda *options: lambda: Recurrent(*options),
        st.sampled_from(sorted(RECURRENT)), st.integers(1, 2), st.booleans(), st.booleans(), st.booleans(),
    ),
    st.builds(lambda *options: lambda: Attention(*options), st.booleans(), st.booleans()),
    st.builds(lambda dilation: lambda: Convolution(dilation), st.integers(1, 3)),
)  # fmt: skip


@FEW_EXPORTS
@given(blocks=st.lists(BLOCKS, min_size=2, max_size=4), opset=st.integers(17, 23))
def test_a_random_model_agrees_at_unseen_sizes(tmp_path, blocks, opset):
    torch.manual_seed(0)
    model = Composed([block() for block in blocks]).eval()
    artifact = export(Job(model, TASK, tmp_path / "model.onnx", Options(opset=opset)))
    assert artifact.opset == opset
    inputs = TASK.example(7, 37)
    assert_agrees(tmp_path / "model.onnx", model, *inputs)
