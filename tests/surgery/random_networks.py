"""Random recurrent networks as people write them, with units that are always 0: removing these must change nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.nn.folding import fold
from compressor.nn.recurrent.cells import CELLS
from tests.surgery import own_cells

INPUTS, CLASSES = 3, 2


@dataclass(frozen=True)
class Case:
    """One network, the recurrent layers and cells whose units go, and how many of each layer and direction are dead."""

    name: str
    model: nn.Module
    layers: tuple[str, ...]
    dead: int


def case(seed: int) -> Case:
    """The network of a seed, in float64 and evaluation mode."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = Network(draw).double().eval()
    if draw.random() < 0.3:
        _norm_weights(model, draw)
        fold(model)
    dead = draw.randint(1, 3)
    for rnn in model.rnns:
        _kill(rnn, dead)
    names = (
        f"rnns.{index}.cell" if isinstance(rnn, Looped) else f"rnns.{index}" for index, rnn in enumerate(model.rnns)
    )
    return Case(model.description, model, tuple(names), dead)


class Network(nn.Module):
    """A front, one to three recurrent layers in a chain with things between them, and one to three consumers of any."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self.front = draw.choice(["none", "linear", "convolution", "gated"])
        width = INPUTS if self.front == "none" else 5
        self.before = {
            "none": nn.Identity,
            "linear": lambda: nn.Linear(INPUTS, 5),
            "convolution": lambda: nn.Conv1d(INPUTS, 5, 3, padding=1),
            "gated": lambda: nn.Linear(INPUTS, 10),
        }[self.front]()
        self.rnns, self.between, self.bridges = nn.ModuleList(), [], nn.ModuleList()
        words, widths = [self.front], []
        for _ in range(draw.randint(1, 3)):
            rnn = _recurrent(draw, width)
            self.rnns.append(rnn)
            out = rnn.hidden_size * (2 if rnn.bidirectional else 1)
            self.between.append(draw.choice(["none", "sigmoid", "complement", "tanh", "scaled", "linear", "doubled"]))
            self.bridges.append(nn.Linear(out, out) if self.between[-1] == "linear" else nn.Identity())
            width = 2 * out if self.between[-1] == "doubled" else out
            widths.append(width)
            words += [f"{rnn.name}({rnn.num_layers}{'b' if rnn.bidirectional else ''})", self.between[-1]]
        self.sources = [len(self.rnns) - 1, *(draw.randrange(len(self.rnns)) for _ in range(draw.randint(0, 2)))]
        self.heads = nn.ModuleList(nn.Linear(widths[source], CLASSES) for source in self.sources)
        self.reads = [draw.choice(["all", "last", "mean", "max"]) for _ in self.heads]
        self.description = " ".join([*words, *self.reads])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, T, I) to one result for each head."""
        y, results = self._front(x), []
        for rnn, between, bridge in zip(self.rnns, self.between, self.bridges, strict=True):
            y = rnn(y)
            y = _between(y[0] if isinstance(y, tuple) else y, between, bridge)
            results.append(y)
        consumers = zip(self.heads, self.sources, self.reads, strict=True)
        return tuple(head(_read(results[source], how)) for head, source, how in consumers)

    def _front(self, x: Tensor) -> Tensor:
        if self.front == "convolution":
            return torch.relu(self.before(x.mT).mT)
        y = self.before(x)
        return nn.functional.glu(y) if self.front == "gated" else y


def _between(y: Tensor, how: str, bridge: nn.Module) -> Tensor:
    if how == "linear":
        return torch.relu(bridge(y))
    return {
        "none": lambda: y,
        "sigmoid": lambda: torch.sigmoid(y),
        "complement": lambda: 1 - y,
        "tanh": lambda: torch.tanh(2 * y),
        "scaled": lambda: y * 0.5,
        "doubled": lambda: torch.cat([y, torch.cos(y)], -1),
    }[how]()


def _read(y: Tensor, how: str) -> Tensor:
    return {"all": lambda: y, "last": lambda: y[:, -1], "mean": lambda: y.mean(1), "max": lambda: y.amax(1)}[how]()


class Looped(nn.Module):
    """A cell of the model's own code in a loop."""

    num_layers, bidirectional = 1, False

    def __init__(self, cell: own_cells.OwnCell) -> None:
        super().__init__()
        self.cell, self.name = cell, type(cell).__name__

    @property
    def hidden_size(self) -> int:
        return self.cell.hidden_size

    def forward(self, x: Tensor) -> Tensor:
        states, outputs = self.cell.start(x), []
        for step in x.unbind(1):
            states = self.cell(step, states)
            outputs.append(states[0])
        return torch.stack(outputs, 1)


def _recurrent(draw: random.Random, width: int) -> nn.RNNBase | Looped:
    if draw.random() < 0.4:
        return Looped(draw.choice(own_cells.CELLS)(draw.randint(5, 9), width))
    kind = draw.choice(list(dict.fromkeys(cell.layer_type for cell in CELLS.values())))

    class OnlyOutput(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[0]

    class Squashed(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(x)[0])

    class Backward(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(input=x.flip(1))[0].flip(1)

    chosen = draw.choice([kind, kind, OnlyOutput, Squashed, Backward])
    rnn = chosen(
        width,
        draw.randint(5, 9),
        num_layers=draw.choice([1, 1, 2]),
        bidirectional=draw.random() < 0.3,
        batch_first=True,
    )
    rnn.name = f"{kind.__name__} {chosen.__name__}"
    return rnn


def _norm_weights(model: Network, draw: random.Random) -> None:
    nn.utils.parametrizations.weight_norm(draw.choice(list(model.heads)))
    if isinstance(model.before, (nn.Linear, nn.Conv1d)):
        nn.utils.parametrizations.spectral_norm(model.before)


def _kill(rnn: nn.RNNBase | Looped, dead: int) -> None:
    """Units whose rows, biases, scales and shifts are 0 give 0 at every step."""
    hidden = rnn.hidden_size
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            if not name.startswith("weight_hr"):
                for gate in range(parameter.size(0) // hidden):
                    parameter[gate * hidden : gate * hidden + dead] = 0
