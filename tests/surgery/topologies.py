"""Models around recurrent layers, each as small as its topology allows; sizes are distinct primes."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

INPUT, HIDDEN, CLASSES = 5, 13, 3
CELLS = {
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}


class Base(nn.Module):
    """One recurrent layer and a head; subclasses say how they are joined."""

    options: dict = {"batch_first": True}
    head_inputs = HIDDEN

    def __init__(self, cell):
        super().__init__()
        self.rnn = cell(INPUT, HIDDEN, **self.options)
        self.head = nn.Linear(self.head_inputs, CLASSES)

    def forward(self, x, lengths):
        return self.head(self.join(x, lengths))


class EveryStep(Base):
    def join(self, x, lengths):
        return self.rnn(x)[0]


class LastStep(Base):
    def join(self, x, lengths):
        return self.rnn(x)[0][:, -1]


class GatherByLength(Base):
    def join(self, x, lengths):
        y = self.rnn(x)[0]
        return y.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, y.size(-1))).squeeze(1)


class IndexByLength(Base):
    def join(self, x, lengths):
        return self.rnn(x)[0][torch.arange(x.size(0)), lengths - 1]


class MeanPooling(Base):
    def join(self, x, lengths):
        return self.rnn(x)[0].mean(dim=1)


class MaskedMean(Base):
    def join(self, x, lengths):
        y = self.rnn(x)[0]
        mask = (torch.arange(x.size(1))[None] < lengths[:, None]).unsqueeze(-1)
        return (y * mask).sum(1) / lengths.unsqueeze(-1)


class MaxPooling(Base):
    def join(self, x, lengths):
        return self.rnn(x)[0].amax(1)


class LastState(Base):
    def join(self, x, lengths):
        states = self.rnn(x)[1]
        return (states[0] if isinstance(states, tuple) else states)[-1]


class Stacked(Base):
    options = {"batch_first": True, "num_layers": 3, "dropout": 0.1}

    def join(self, x, lengths):
        return self.rnn(x)[0]


class NoBias(Base):
    options = {"batch_first": True, "num_layers": 2, "bias": False}

    def join(self, x, lengths):
        return self.rnn(x)[0]


class SequenceFirst(Base):
    options = {"num_layers": 2}

    def join(self, x, lengths):
        return self.rnn(x.transpose(0, 1))[0][-1]


class Packed(Base):
    def join(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


class PackedMean(Base):
    """The mean over padded steps behind a packed sequence."""

    def join(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.size(1))[0].mean(1)


class Bidirectional(Base):
    options = {"batch_first": True, "num_layers": 2, "bidirectional": True}
    head_inputs = 2 * HIDDEN

    def join(self, x, lengths):
        return self.rnn(x)[0]


class SummedDirections(Base):
    options = {"batch_first": True, "bidirectional": True}

    def join(self, x, lengths):
        forward, backward = self.rnn(x)[0].chunk(2, dim=-1)
        return forward + backward


class SummedView(Base):
    """Both directions added by a view, as in DeepSpeech 2."""

    options = {"bidirectional": True}

    def join(self, x, lengths):
        y = self.rnn(x.transpose(0, 1))[0]
        return y.view(y.size(0), y.size(1), 2, -1).sum(2).transpose(0, 1)


class UnitLength(Base):
    """Embeddings of length 1, as for a comparison by cosine."""

    def join(self, x, lengths):
        return nn.functional.normalize(self.rnn(x)[0][:, -1], dim=-1)


class GatedConvolution(Base):
    """A convolution in front, half of whose channels gate the other half."""

    def __init__(self, cell):
        super().__init__(cell)
        self.conv = nn.Conv1d(INPUT, 2 * 7, 3, padding=1)
        self.rnn = cell(7, HIDDEN, batch_first=True)

    def join(self, x, lengths):
        return self.rnn(nn.functional.glu(self.conv(x.transpose(1, 2)), dim=1).transpose(1, 2))[0]


class BothLastStates(Base):
    options = {"batch_first": True, "bidirectional": True}
    head_inputs = 2 * HIDDEN

    def join(self, x, lengths):
        states = self.rnn(x)[1]
        states = states[0] if isinstance(states, tuple) else states
        return torch.cat([states[-2], states[-1]], dim=-1)


class TwoModules(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.front = nn.Sequential(nn.Linear(INPUT, 7), nn.ReLU())
        self.rnn = cell(7, 11, batch_first=True)
        self.second = cell(11, HIDDEN, batch_first=True)

    def join(self, x, lengths):
        return self.second(torch.tanh(self.rnn(self.front(x))[0]))[0]


class LearnedState(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.start = nn.Parameter(torch.randn(1, 1, HIDDEN))

    def join(self, x, lengths):
        start = self.start.expand(1, x.size(0), -1).contiguous()
        return self.rnn(x, (start, start) if isinstance(self.rnn, nn.LSTM) else start)[0]


class ConvolutionInFront(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.conv = nn.Conv1d(INPUT, INPUT, 3, padding=1)

    def join(self, x, lengths):
        return self.rnn(torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2))[0]


class BatchNormBehind(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.norm = nn.BatchNorm1d(HIDDEN)

    def join(self, x, lengths):
        return self.norm(self.rnn(x)[0].transpose(1, 2)).transpose(1, 2)


class SkipConcatenation(Base):
    head_inputs = HIDDEN + INPUT

    def join(self, x, lengths):
        return torch.cat([x, self.rnn(x)[0]], dim=-1)


class AttentionPooling(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.query = nn.Linear(HIDDEN, 1)

    def join(self, x, lengths):
        y = self.rnn(x)[0]
        weights = torch.softmax(self.query(y), dim=1)
        return (weights.transpose(1, 2) @ y).squeeze(1)


class HandOver(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.decoder = cell(INPUT, HIDDEN, batch_first=True)

    def join(self, x, lengths):
        return self.decoder(x.flip(1), self.rnn(x)[1])[0]


class Residual(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.project = nn.Linear(INPUT, HIDDEN)

    def join(self, x, lengths):
        return self.rnn(x)[0] + self.project(x)


class UsedTwice(Base):
    def join(self, x, lengths):
        return self.rnn(x)[0] + self.rnn(x.flip(1))[0]


class CellState(Base):
    """A head on `c_n` (on `h_n` if there is no cell state)."""

    def join(self, x, lengths):
        states = self.rnn(x)[1]
        return (states[1] if isinstance(states, tuple) else states)[0]


class StateFromLinear(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.start = nn.Linear(INPUT, HIDDEN)

    def join(self, x, lengths):
        start = torch.tanh(self.start(x[:, 0])).unsqueeze(0)
        return self.rnn(x, (start, start) if isinstance(self.rnn, nn.LSTM) else start)[0]


class ZeroState(Base):
    def join(self, x, lengths):
        start = x.new_zeros(1, x.size(0), self.rnn.hidden_size)
        return self.rnn(x, (start, start) if isinstance(self.rnn, nn.LSTM) else start)[0]


class SlicedDirection(Base):
    """Only the forward direction is read; the size is asked of the tensor."""

    options = {"batch_first": True, "bidirectional": True}

    def join(self, x, lengths):
        y = self.rnn(x)[0]
        return y[..., : y.size(-1) // 2]


class AttentionDecoder(Base):
    """Sequence to sequence: states are handed over, each decoder step attends over the encoder's outputs."""

    head_inputs = 2 * HIDDEN

    def __init__(self, cell):
        super().__init__(cell)
        self.decoder = cell(INPUT, HIDDEN, batch_first=True)

    def join(self, x, lengths):
        encoded, states = self.rnn(x)
        decoded, _ = self.decoder(x.flip(1), states)
        weights = torch.softmax(torch.bmm(decoded, encoded.transpose(1, 2)), dim=-1)
        return torch.cat([decoded, torch.bmm(weights, encoded)], dim=-1)


class ImageFront(Base):
    """Two convolutions, then columns of the picture as steps, as text readers do it."""

    def __init__(self, cell):
        super().__init__(cell)
        self.first = nn.Conv2d(1, 7, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.depthwise = nn.Conv2d(7, 7, 3, padding=1, groups=7)
        self.second = nn.Conv2d(7, 3, 3, padding=1)
        self.rnn = cell(3 * INPUT, HIDDEN, batch_first=True)

    def join(self, x, lengths):
        picture = torch.relu(self.norm(self.first(x.transpose(1, 2).unsqueeze(1))))
        picture = torch.relu(self.second(self.depthwise(picture)))  # (B, 3, INPUT, T)
        return self.rnn(picture.permute(0, 3, 1, 2).flatten(2))[0]


class Gated(Base):
    """A sigmoid makes 0.5 of a silent unit."""

    def join(self, x, lengths):
        return torch.sigmoid(self.rnn(x)[0])


class Embedded(Base):
    """Tied embedding and output weights, token by token."""

    def __init__(self, cell):
        super().__init__(cell)
        self.embedding = nn.Embedding(17, HIDDEN)
        self.rnn = cell(HIDDEN, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 17, bias=False)
        self.head.weight = self.embedding.weight

    def join(self, x, lengths):
        return self.rnn(self.embedding((x[..., 0].abs() * 5).long().clamp(max=16)))[0]


class LayerNormBehind(Base):
    """The mean is taken over all units; removed ones count on as zeros."""

    def __init__(self, cell):
        super().__init__(cell)
        self.norm = nn.LayerNorm(HIDDEN)
        self.bare = nn.LayerNorm(HIDDEN, elementwise_affine=False)

    def join(self, x, lengths):
        y = self.rnn(x)[0]
        return self.norm(y) + self.bare(y)


class Streaming(Base):
    """States are inputs and outputs of the model."""

    options = {"batch_first": True, "num_layers": 2}

    def forward(self, x, lengths, *states):
        states = states or [x.new_zeros(2, x.size(0), HIDDEN)] * (2 if isinstance(self.rnn, nn.LSTM) else 1)
        y, states = self.rnn(x, tuple(states) if isinstance(self.rnn, nn.LSTM) else states[0])
        return self.head(y), *(states if isinstance(states, tuple) else (states,))


class SelfAttentionBehind(Base):
    def __init__(self, cell):
        super().__init__(cell)
        self.attention = nn.MultiheadAttention(HIDDEN, 1, batch_first=True)

    def join(self, x, lengths):
        y = self.rnn(x)[0]
        return self.attention(y, y, y, need_weights=False)[0]


class EncoderLayerBehind(Base):
    """A Transformer encoder layer: its residuals tie its features to the units."""

    def __init__(self, cell):
        super().__init__(cell)
        self.encoder = nn.TransformerEncoderLayer(HIDDEN, 1, 17, batch_first=True)

    def join(self, x, lengths):
        return self.encoder(self.rnn(x)[0])


class Projected(Base):
    """An LSTM with `proj_size` (other cells have none): its cells go, and outputs of its projection."""

    head_inputs = 3

    def __init__(self, cell):
        super().__init__(cell)
        self.rnn = nn.LSTM(INPUT, HIDDEN, 2, batch_first=True, proj_size=3)

    def join(self, x, lengths):
        return self.rnn(x)[0]


SUPPORTED = [
    EveryStep, LastStep, GatherByLength, IndexByLength, MeanPooling, MaskedMean, MaxPooling, LastState, Stacked, NoBias,
    SequenceFirst, Packed, PackedMean, Bidirectional, SummedDirections, BothLastStates, TwoModules, LearnedState,
    ConvolutionInFront, BatchNormBehind, SkipConcatenation, AttentionPooling, HandOver, Residual, UsedTwice, CellState,
    StateFromLinear, ZeroState, SlicedDirection, AttentionDecoder, LayerNormBehind,
    SelfAttentionBehind, EncoderLayerBehind, Projected, ImageFront, Gated, Embedded, SummedView, UnitLength,
    GatedConvolution,
]  # fmt: skip


class CellLoop(nn.Module):
    """A Python loop over a cell, its state kept by hand."""

    def __init__(self, cell):
        super().__init__()
        self.rnn = cell(INPUT, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x, lengths):
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.rnn(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs, 1))


CELL_KINDS = {
    "rnn_tanh": nn.RNNCell,
    "rnn_relu": lambda *a: nn.RNNCell(*a, nonlinearity="relu"),
    "gru": nn.GRUCell,
    "lstm": nn.LSTMCell,
}


class StateAsOutput(Base):
    """refused: the output's size would change"""

    def forward(self, x, lengths):
        return self.rnn(x)[0]


class FixedView(Base):
    """refused: 13 stands in the code"""

    def join(self, x, lengths):
        return self.rnn(x)[0].reshape(-1, 13)


class InputAdded(Base):
    """refused: the other summand keeps its size"""

    def __init__(self, cell):
        super().__init__(cell)
        self.register_buffer("wide", torch.randn(INPUT, HIDDEN), persistent=False)

    def join(self, x, lengths):
        return self.rnn(x)[0] + torch.cat([x, x, x[..., :3]], dim=-1)


class Sorted(Base):
    """refused: sorts across units"""

    def join(self, x, lengths):
        return self.rnn(x)[0].sort(dim=-1).values


REFUSED = {
    StateAsOutput: "part of the model's output 0",
    FixedView: "a size may be fixed in the model's code",
    InputAdded: "combined with a tensor of fixed size",
    Sorted: "`aten::sort` at topologies.py:",
}
