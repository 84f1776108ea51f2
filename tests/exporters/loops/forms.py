"""Models that call cells, or do arithmetic, in a Python loop over time."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from compressor.testing import RandomTask, random_lengths
from tests.exporters.agreement import assert_agrees

INPUT, HIDDEN, WORDS, CLASSES = 5, 7, 11, 3
TIMED = {0: "batch", 1: "time"}
SIZES = [(1, 1), (2, 2), (5, 3), (2, 7), (3, 31)]


class Parts(nn.Module):
    """What the loops below are made of."""

    def __init__(self, cell=nn.LSTMCell, hidden=HIDDEN):
        super().__init__()
        self.hidden = hidden
        self.cell, self.second = cell(INPUT, hidden), cell(hidden, hidden)
        self.pair = nn.GRUCell(2 * INPUT, hidden)
        self.head, self.start = nn.Linear(hidden, CLASSES), nn.Linear(INPUT, hidden)
        self.norm, self.dropout = nn.LayerNorm(hidden), nn.Dropout(0.5)
        self.words = nn.Embedding(WORDS, INPUT)

    def zeros(self, x):
        return torch.zeros(x.size(0), self.hidden)


class EveryStep(Parts):
    """An output at every step, from states that start as zeros."""

    def forward(self, x):
        h, c, outputs = self.zeros(x), self.zeros(x), []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1), c


class Unbound(Parts):
    """No state is given to the first step."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        h, outputs = None, []
        for step in x.unbind(1):
            h = self.cell(step, h)
            outputs.append(h.unsqueeze(1))
        return torch.cat(outputs, dim=1)


class Relu(Parts):
    """A transposed sequence, of which the last state is used."""

    def __init__(self):
        super().__init__(lambda *sizes: nn.RNNCell(*sizes, nonlinearity="relu"))

    def forward(self, x):
        h = x.new_zeros(x.size(0), HIDDEN)
        for step in x.transpose(0, 1):
            h = self.cell(step, h)
        return self.head(h)


class Stack(Parts):
    """Two cells, with an embedding, a norm, a dropout and a residual between and around them."""

    def forward(self, words):
        states, outputs = [(self.zeros(words),) * 2 for _ in range(2)], []
        for t in range(words.shape[1]):
            x = self.words(words[:, t])
            for layer, cell in enumerate((self.cell, self.second)):
                states[layer] = cell(x, states[layer])
                new = self.dropout(self.norm(states[layer][0]))
                x = new + x if layer else new
            outputs.append(x)
        return torch.stack(outputs, 1), states[0][1]


class Backward(Parts):
    """From the last step to the first, into a tensor that is there before."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        h, outputs = self.zeros(x), x.new_zeros(*x.shape[:2], CLASSES)
        for t in reversed(range(x.shape[1])):
            h = self.cell(x[:, t], h)
            outputs[:, t] = self.head(h)
        return outputs


class BothWays(Parts):
    """Two loops in opposite directions, joined step by step."""

    def forward(self, x):
        ahead, back = [], []
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            ahead.append(state[0])
        state = None
        for t in range(x.shape[1] - 1, -1, -1):
            state = self.cell(x[:, t], state)
            back.insert(0, state[0])
        return torch.stack([torch.cat(both, -1) for both in zip(ahead, back, strict=True)], 1)


class LayerAfterLayer(Parts):
    """Each layer runs over the list of the one below."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        steps = [x[:, t] for t in range(x.shape[1])]
        for cell in (self.cell, self.second):
            h, outputs = None, []
            for step in steps:
                h = cell(step, h)
                outputs.append(h)
            steps = outputs
        return torch.stack(steps, 1), steps[-1], steps[0]


class Windows(Parts):
    """Steps that overlap."""

    def forward(self, x):
        x, h, outputs = nn.functional.pad(x, (0, 0, 1, 0)), self.zeros(x), []
        for t in range(x.shape[1] - 1):
            h = self.pair(x[:, t : t + 2].flatten(1), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Neighbours(Parts):
    """Every step but the first, from a first one of its own: no iteration at length 1."""

    def forward(self, x):
        h = torch.tanh(self.start(x[:, 0]))
        outputs = [h]
        for t in range(x.shape[1] - 1):
            h = self.pair(torch.cat([x[:, t], x[:, t + 1]], -1), h)
            outputs.append(h)
        return torch.stack(outputs, 1), h


class FirstIsAnother(Parts):
    """`if t == 0`, and an LSTM whose last c is an output: no node gives it for no iteration."""

    def forward(self, x):
        for t in range(x.shape[1]):
            if t == 0:
                h = c = torch.tanh(self.start(x[:, t]))
            else:
                h, c = self.cell(x[:, t], (h, c))
        return h, c


class ByHand(Parts):
    """A state of plain arithmetic."""

    def forward(self, x):
        h, outputs = self.zeros(x), []
        for t in range(x.shape[1]):
            reset = torch.sigmoid(self.start(x[:, t]) + h @ self.second.weight_hh[: self.hidden].T)
            h = torch.tanh(self.start(x[:, t]) + reset * self.norm(h))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class Selective(Parts):
    """A state that decays by a gate, its type written out, as in selective state spaces."""

    def forward(self, x):
        state, outputs = self.zeros(x), []
        for t in range(x.shape[1]):
            state = torch.sigmoid(self.start(x[:, t])) * state + self.start(x[:, t])
            outputs.append(state.to(x.dtype))
        return self.head(torch.stack(outputs, 1))


class Greedy(Parts):
    """The word of a step is the input of the next."""

    def forward(self, x):
        h, c, word, outputs = self.zeros(x), self.zeros(x), torch.zeros(x.size(0), dtype=torch.long), []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t] + self.words(word), (h, c))
            word = self.head(h).argmax(-1)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class Attends(Parts):
    """A teacher-forced decoder that attends to what an encoder gave, and is fed what it attended to."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(INPUT, INPUT, batch_first=True)
        self.query, self.key, self.score = nn.Linear(HIDDEN, 4), nn.Linear(INPUT, 4), nn.Linear(4, 1, bias=False)

    def forward(self, x, words):
        memory, _ = self.encoder(x)
        h, c, context, outputs = self.zeros(x), self.zeros(x), x.new_zeros(x.size(0), INPUT), []
        for t in range(words.shape[1]):
            h, c = self.cell(self.words(words[:, t]) + context, (h, c))
            scores = self.score(torch.tanh(self.query(h)[:, None] + self.key(memory)))  # (B, T, 1)
            context = (scores.softmax(1) * memory).sum(1)
            outputs.append(torch.cat([self.head(h), context], -1))
        return torch.stack(outputs, 1)


class TwoBefore(Parts):
    """A step reads the last but one."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        states = [self.zeros(x), torch.ones(x.size(0), HIDDEN)]
        for t in range(x.shape[1]):
            states.append(self.cell(x[:, t], states[-2]) + 0.5 * states[-1])
        return torch.stack(states[2:], 1)


class Masked(Parts):
    """Padding leaves the state as it is."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x, lengths):
        h, valid = self.zeros(x), torch.arange(x.shape[1]) < lengths[:, None]  # (B, T)
        for t in range(x.shape[1]):
            h = torch.where(valid[:, t, None], self.cell(x[:, t], h), h)
        return h


class Numbered(Parts):
    """The number of a step, a table of positions, and a mean by hand."""

    def forward(self, x):
        h, total = self.zeros(x), 0
        table = torch.linspace(0, 1, 64 * INPUT).reshape(64, INPUT)
        for t in range(x.shape[1]):
            h = torch.tanh(self.start(x[:, t] + table[t]) / (t + 1) + h)
            total = total + h * (t + 1)
        return total / x.shape[1]


class StepOfALayer(Parts):
    """A layer of PyTorch that is called with one step at a time."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(INPUT, HIDDEN, 2, batch_first=True)

    def forward(self, x):
        state, outputs = None, []
        for t in range(x.shape[1]):
            y, state = self.rnn(x[:, t : t + 1], state)
            outputs.append(self.head(y))
        return torch.cat(outputs, 1)


class FromTheSecond(Parts):
    """Time first, and outputs written from the second step on."""

    def forward(self, x):
        x, h, c = x.transpose(0, 1), self.zeros(x), self.zeros(x)
        outputs = torch.ones(x.size(0), x.size(1), CLASSES)
        for t in range(1, x.size(0)):
            h, c = self.cell(x[t - 1], (h, c))
            outputs[t] = self.head(h)
        return outputs.transpose(0, 1)


class Twice(Parts):
    """One loop over two sequences, the second the first one's results; states in a tensor that is written into."""

    def over(self, x, cell):
        h, c, outputs = torch.zeros(1, x.size(0), HIDDEN), torch.zeros(1, x.size(0), HIDDEN), []
        for t in range(x.size(1)):
            h[0], c[0] = cell(x[:, t], (h[0].clone(), c[0].clone()))
            outputs.append(h[0].clone())
        return torch.stack(outputs, 1)

    def forward(self, x):
        return self.over(self.over(self.over(x, self.cell), self.second), self.second)


class Positions(Parts):
    """The number of the step, made a tensor, chooses a row of a table."""

    def __init__(self):
        super().__init__(nn.GRUCell)
        self.table = nn.Embedding(64, INPUT)

    def forward(self, x):
        h, outputs = None, None
        for t in range(x.size(1)):
            place = torch.full((x.size(0),), t, dtype=torch.long)
            h = self.cell(x[:, t] + self.table(place) + self.table(torch.tensor(t)), h)
            outputs = torch.cat([x.new_zeros(x.size(0), 0, HIDDEN) if outputs is None else outputs, h[:, None]], 1)
        return outputs


class Frames(Parts):
    """A convolution within each step, which nothing feeds back."""

    def __init__(self):
        super().__init__(nn.GRUCell)
        self.convolution = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        h = None
        for step in x.unbind(1):
            h = self.cell(self.convolution(step[:, None]).relu().flatten(1), h)
        return h


FORMS = {
    EveryStep: {"LSTM": 1},
    Unbound: {"GRU": 1},
    Relu: {"RNN": 1},
    Stack: {"LSTM": 2},
    Backward: {"GRU": 1},
    BothWays: {"LSTM": 2},
    LayerAfterLayer: {"GRU": 2},
    Windows: {"GRU": 1},
    Neighbours: {"GRU": 1},
    FirstIsAnother: {"Scan": 1},
    ByHand: {"Scan": 1},
    Selective: {"Scan": 1},
    Greedy: {"Scan": 1},
    Attends: {"GRU": 1, "Scan": 1},
    TwoBefore: {"Scan": 1},
    Masked: {"Scan": 1},
    Numbered: {"Scan": 2},
    StepOfALayer: {"GRU": 4, "Scan": 1},  # the first step, which is given no state, stands in front
    FromTheSecond: {"LSTM": 1},
    Frames: {"GRU": 1, "Conv": 1},
    Twice: {"LSTM": 3},
    Positions: {"GRU": 1},
}


class Together(nn.Module):
    """Gives what all forms give on the same inputs."""

    def __init__(self, forms):
        super().__init__()
        self.forms = nn.ModuleList(form() for form in forms)

    def forward(self, x, words, lengths):
        given, outputs = {"x": x, "words": words, "lengths": lengths}, []
        for form in self.forms:
            found = form(*(given[name] for name in names_of(form)))
            outputs += found if isinstance(found, tuple) else (found,)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]


def names_of(model):
    """Names of the parameters of `forward`."""
    return list(inspect.signature(model.forward).parameters)


def examples(batch, length):
    """What a form may take, by the names of `forward`'s parameters."""
    return {
        "x": torch.randn(batch, length, INPUT),
        "words": torch.randint(WORDS, (batch, length)),
        "lengths": random_lengths(batch, length),
    }


def task_for(model, **attributes):
    names = names_of(model)
    axes = {"x": TIMED, "words": TIMED, "lengths": {0: "batch"}}
    with torch.no_grad():
        outputs = model(*(examples(2, 4)[name] for name in names))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return RandomTask(
        {name: axes[name] for name in names},
        {f"y{index}": TIMED if part.dim() == 3 else {0: "batch"} for index, part in enumerate(outputs)},
        lambda batch, length: tuple(examples(batch, length)[name] for name in names),
        **{"length": 4, "max_length": 13} | attributes,
    )


def agrees(model, task, path, sizes=SIZES):
    for batch, length in sizes:
        inputs = task.example(batch, length)
        assert_agrees(path, model, *inputs)
