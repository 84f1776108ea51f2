"""Recurrent models in styles that no list of topologies has: states in dictionaries and lists, loops of every kind.

Each of `STRANGERS` is a model and what it is called with; half of the units go, and the rest is compared with the
original by the numbers alone (`benchmarks/peer_check.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.task.signature import Call

INPUT, HIDDEN, CLASSES, WORDS = 5, 12, 3, 9
Example = Callable[[int, int], Any]


def one(batch: int, length: int) -> tuple[Tensor, ...]:
    """(B, T, I)."""
    return (torch.randn(batch, length, INPUT),)


def two(batch: int, length: int) -> tuple[Tensor, ...]:
    """Twice (B, T, I)."""
    return torch.randn(batch, length, INPUT), torch.randn(batch, length, INPUT)


def with_lengths(batch: int, length: int) -> tuple[Tensor, ...]:
    """(B, T, I) and lengths (B,), of which the first is T."""
    lengths = torch.randint(1, length + 1, (batch,)).index_fill(0, torch.tensor([0]), length)
    return torch.randn(batch, length, INPUT), lengths


def with_words(batch: int, length: int) -> tuple[Tensor, ...]:
    """(B, T, I) and four words (B, 4)."""
    return torch.randn(batch, length, INPUT), torch.randint(0, WORDS, (batch, 4))


def with_speaker(batch: int, length: int) -> tuple[Tensor, ...]:
    """(B, T, I) and a number below 4 (B,)."""
    return torch.randn(batch, length, INPUT), torch.randint(0, 4, (batch,))


def nested(batch: int, length: int) -> tuple[Tensor, ...]:
    """Sentences of four words, (B, T, 4, I)."""
    return (torch.randn(batch, length, 4, INPUT),)


def by_keyword(batch: int, length: int) -> Call:
    """x (B, T, I) and a mask (B, T) whose first step is real."""
    mask = torch.rand(batch, length) > 0.3
    mask[:, 0] = True
    return Call(x=torch.randn(batch, length, INPUT), mask=mask)


class StateDict(nn.Module):
    """The state is a dictionary, and so is the result."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(INPUT, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN, bias=False)
        self.head, self.hidden = nn.Linear(HIDDEN, CLASSES), HIDDEN

    def step(self, x: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        i, f, o, new = torch.tensor_split(self.enter(x) + self.again(state["h"]), 4, dim=-1)
        c = torch.sigmoid(f) * state["c"] + torch.sigmoid(i) * torch.tanh(new)
        return dict(state, h=torch.sigmoid(o) * torch.tanh(c), c=c)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        zeros = x.new_zeros(x.shape[0], self.hidden)
        state, outputs = {"h": zeros, "c": zeros.clone()}, []
        for t in range(x.shape[1]):
            state = self.step(x[:, t], state)
            outputs.append(self.head(state["h"]))
        return {"each": torch.stack(outputs, 1), "last": self.head(state["c"])}


class CellDict(nn.Module):
    """Cells in a ModuleDict, one of which takes in the other."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleDict({"fast": nn.GRUCell(INPUT, HIDDEN), "slow": nn.LSTMCell(INPUT + HIDDEN, HIDDEN)})
        self.heads = nn.ModuleDict({"state": nn.Linear(HIDDEN, 2), "both": nn.Linear(2 * HIDDEN, CLASSES)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states: dict[str, Any] = dict.fromkeys(self.cells)
        outputs = []
        for step in x.unbind(1):
            states["fast"] = self.cells["fast"](step, states["fast"])
            states["slow"] = self.cells["slow"](torch.cat((step, states["fast"]), -1), states["slow"])
            outputs.append(self.heads["both"](torch.cat([states["fast"], states["slow"][0]], -1)))
        return torch.stack(outputs, 1), self.heads["state"](states["slow"][1])


class Einsum(nn.Module):
    """A GRU whose parameters have an axis of their own for the gates."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Parameter(torch.randn(3, HIDDEN, INPUT) * 0.3)
        self.again = nn.Parameter(torch.randn(3, HIDDEN, HIDDEN) * 0.3)
        self.bias, self.head = nn.Parameter(torch.zeros(3, HIDDEN)), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(len(x), self.again.shape[-1]), []
        given = torch.einsum("bti,ghi->gbth", x, self.enter) + self.bias[:, None, None]
        for t in range(x.shape[1]):
            r, z, n = torch.einsum("bk,ghk->gbh", h, self.again)
            r, z = torch.sigmoid(given[0, :, t] + r), torch.sigmoid(given[1, :, t] + z)
            h = torch.lerp(torch.tanh(given[2, :, t] + r * n), h, z)
            outputs.append(h)
        return self.head(torch.stack(outputs, 1))


class Siamese(nn.Module):
    """One encoder for two inputs, whose last states are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(INPUT, HIDDEN, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(8 * HIDDEN, 10), nn.ReLU(), nn.Linear(10, 2))

    def encoded(self, x: Tensor) -> Tensor:
        return self.rnn(x)[1][0].transpose(0, 1).flatten(1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.encoded(x), self.encoded(y)
        return self.head(torch.cat([x, y, (x - y).abs(), x * y], 1))


class Decoder(nn.Module):
    """Attention over an encoder's states, and what it said is what it reads next (or the teacher's words)."""

    teacher = True

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.embed = nn.GRU(INPUT, HIDDEN, batch_first=True), nn.Embedding(WORDS, 6)
        self.cell, self.head = nn.GRUCell(6 + HIDDEN, HIDDEN), nn.Linear(2 * HIDDEN, WORDS)

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        memory, last = self.encoder(x)
        h, previous, outputs = last.squeeze(0), words[:, 0], []
        for t in range(words.shape[1]):
            weights = torch.softmax((memory * h.unsqueeze(1)).sum(-1), -1)
            context = (weights.unsqueeze(-1) * memory).sum(1)
            h = self.cell(torch.cat([self.embed(previous), context], -1), h)
            outputs.append(self.head(torch.cat([h, context], -1)))
            previous = words[:, t] if self.teacher else outputs[-1].argmax(-1)
        return torch.stack(outputs, 1)


class Speaking(Decoder):
    """Without a teacher."""

    teacher = False


class Sorted(nn.Module):
    """Sorts by length, packs, pads, and puts everything back in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(INPUT, HIDDEN, 2, batch_first=True), nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        lengths, order = lengths.sort(descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(x[order], lengths.cpu(), batch_first=True)
        y, (h, _) = self.rnn(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        back = order.argsort()
        y, h = y[back], h.index_select(1, back)
        return self.head(torch.cat([y.sum(1) / lengths[back].unsqueeze(1), h[-1]], -1))


class Chunked(nn.Module):
    """Three steps at a time, the state detached between them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(INPUT, HIDDEN, 2, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for part in x.split(3, dim=1):
            y, state = self.rnn(part, state)
            state = state.detach()
            outputs.append(y)
        return self.head(torch.cat(outputs, 1))


@dataclass
class Result:
    """What `Structured` gives."""

    scores: Tensor
    hidden: Tensor | None = None


class Structured(nn.Module):
    """Gives a dataclass, whose second part is an output too."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.mid = nn.GRU(INPUT, HIDDEN, batch_first=True), nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Result:
        hidden = torch.relu(self.mid(self.rnn(x)[0]))
        return Result(self.head(hidden), hidden)


class ByKeyword(nn.Module):
    """Arguments by name alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(INPUT, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, *, x: Tensor, mask: Tensor | None = None, scale: float = 1.0) -> Tensor:
        y, _ = self.rnn(input=x)
        y = y[:, -1] if mask is None else y.masked_fill(~mask.unsqueeze(-1), float("-inf")).amax(1)
        return self.head(y) * scale


class Listed(nn.Module):
    """Attention over the list of all states so far, which starts with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.query, self.key = nn.LSTMCell(INPUT, HIDDEN), nn.Linear(HIDDEN, 8), nn.Linear(HIDDEN, 8)
        self.score = nn.Parameter(torch.randn(8))
        self.mix, self.head = nn.Linear(2 * HIDDEN, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), self.cell.hidden_size)
        states = [h]
        for t in range(x.size(1)):
            past = torch.stack(states, 1)
            weights = torch.tanh(self.query(h).unsqueeze(1) + self.key(past)) @ self.score
            context = torch.einsum("bt,bth->bh", weights.softmax(-1), past)
            h, c = self.cell(x[:, t], (torch.tanh(self.mix(torch.cat([h, context], 1))), c))
            states.append(h)
        return self.head(torch.stack(states[1:], 1))


class Experts(nn.Module):
    """The two best of three experts for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.route = nn.GRU(INPUT, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(HIDDEN, 9), nn.GELU(), nn.Linear(9, HIDDEN)) for _ in range(3)
        )
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        weights = self.route(y).softmax(-1)
        top, places = weights.topk(2, -1)
        chosen = torch.zeros_like(weights).scatter(-1, places, top)
        return self.head(y + sum(chosen[..., i : i + 1] * expert(y) for i, expert in enumerate(self.experts)))


class FastWeights(nn.Module):
    """Linear attention with decay by hand: a state of keys times values."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(INPUT, 10), nn.Linear(INPUT, 10), nn.Linear(INPUT, 7)
        self.decay, self.head = nn.Linear(INPUT, 1), nn.Linear(7, CLASSES)

    def start(self, keys: Tensor, values: Tensor) -> Tensor:
        return keys.new_zeros(keys.size(0), keys.size(-1), values.size(-1))

    def step(self, state: Tensor, decay: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return decay[..., None] * state + key[..., None] * value[:, None]

    def forward(self, x: Tensor) -> Tensor:
        query, key, value, decay = self.query(x), self.key(x), self.value(x), torch.sigmoid(self.decay(x))
        state, outputs = self.start(key, value), []
        for t in range(x.size(1)):
            state = self.step(state, decay[:, t], key[:, t], value[:, t])
            outputs.append((query[:, t, :, None] * state).sum(1))
        return self.head(torch.stack(outputs, 1))


class TokenShift(nn.Module):
    """RWKV's time mixing: each step sees the one before, and two states decay."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_k, self.mix_v = nn.Parameter(torch.rand(HIDDEN)), nn.Parameter(torch.rand(HIDDEN))
        self.decay, self.first = nn.Parameter(torch.rand(HIDDEN)), nn.Parameter(torch.rand(HIDDEN))
        self.enter, self.head = nn.Linear(INPUT, HIDDEN), nn.Linear(HIDDEN, CLASSES)
        self.key, self.value, self.gate, self.leave = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        before = functional.pad(x, (0, 0, 1, -1))
        k = self.key(x * self.mix_k + before * (1 - self.mix_k))
        v = self.value(x * self.mix_v + before * (1 - self.mix_v))
        top = bottom = torch.zeros_like(k[:, 0])
        outputs = []
        for t in range(x.size(1)):
            now = torch.exp(k[:, t] + self.first)
            outputs.append((top + now * v[:, t]) / (bottom + now))
            decay, now = torch.exp(-torch.exp(self.decay)), torch.exp(k[:, t])
            top, bottom = decay * top + now * v[:, t], decay * bottom + now
        return self.head(x + self.leave(torch.sigmoid(self.gate(x)) * torch.stack(outputs, 1)))


class Speaker(nn.Module):
    """The initial states of both layers are made of a speaker's vector."""

    def __init__(self) -> None:
        super().__init__()
        self.speaker, self.start = nn.Embedding(4, 6), nn.Linear(6, 2 * HIDDEN)
        self.rnn, self.head = nn.GRU(INPUT, HIDDEN, 2, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor, who: Tensor) -> tuple[Tensor, Tensor]:
        start = torch.tanh(self.start(self.speaker(who))).view(-1, 2, self.rnn.hidden_size)
        y, h = self.rnn(x, start.transpose(0, 1).contiguous())
        return self.head(y), self.head(h.permute(1, 0, 2).mean(1))


class Buffered(nn.Module):
    """Writes its states into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(INPUT, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        outputs = x.new_empty(*x.shape[:2], self.cell.hidden_size)
        h = c = x.new_zeros(x.size(0), self.cell.hidden_size)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], (h, c))
            outputs[:, t] = h
        return self.head(outputs)


class Hierarchy(nn.Module):
    """Words to sentences to a text."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.GRU(INPUT, HIDDEN, batch_first=True, bidirectional=True)
        self.sentences, self.head = nn.GRU(2 * HIDDEN, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        batch, sentences, words, size = x.shape
        _, h = self.words(x.reshape(batch * sentences, words, size))
        return self.head(self.sentences(torch.cat([h[0], h[1]], -1).view(batch, sentences, -1))[0])


class Crossed(nn.Module):
    """One cell for two inputs, each of which sees the other's state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(INPUT + HIDDEN, HIDDEN), nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        left = right = x.new_zeros(x.size(0), self.cell.hidden_size)
        for t in range(x.size(1)):
            seen = torch.cat([x[:, t], right], 1), torch.cat([y[:, t], left], 1)
            left, right = self.cell(seen[0], left), self.cell(seen[1], right)
        return self.head(torch.cat([left, right], 1))


class Tree(nn.Module):
    """Neighbours are joined by a tree LSTM until one is left."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.join = nn.Linear(INPUT, HIDDEN), nn.Linear(2 * HIDDEN, 5 * HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        c = torch.zeros_like(h)
        while h.size(1) > 1:
            if h.size(1) % 2:
                h, c = functional.pad(h, (0, 0, 0, 1)), functional.pad(c, (0, 0, 0, 1))
            gates = self.join(torch.cat([h[:, ::2], h[:, 1::2]], -1))
            i, left, right, o, new = gates.chunk(5, -1)
            kept = torch.sigmoid(left) * c[:, ::2] + torch.sigmoid(right) * c[:, 1::2]
            c = torch.sigmoid(i) * torch.tanh(new) + kept
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h.squeeze(1))


class Generated(nn.Module):
    """The loop is a generator, the gates are split by a size that the module keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(INPUT, 3 * HIDDEN), nn.Linear(HIDDEN, 3 * HIDDEN)
        self.head, self.n = nn.Linear(HIDDEN, CLASSES), HIDDEN

    def states(self, x: Tensor) -> Iterator[Tensor]:
        h = torch.zeros(x.size(0), self.n, dtype=x.dtype)
        for step in x.unbind(1):
            _, z, new = map(torch.add, self.enter(step).split(self.n, 1), self.again(h).split(self.n, 1))
            h = torch.tanh(new) * (1 - z.sigmoid()) + h * z.sigmoid()
            yield h

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.stack(list(self.states(x)), 1))


class Residual(nn.Module):
    """A list of cells with a normalisation and a residual each."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList(nn.LSTMCell(HIDDEN if i else INPUT, HIDDEN) for i in range(3))
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(3)), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states: list[Any] = [None] * 3
        outputs = []
        for step in x.unbind(1):
            y = step
            for i, (cell, norm) in enumerate(zip(self.cells, self.norms, strict=True)):
                states[i] = cell(y, states[i])
                y = norm(states[i][0]) + (y if i else 0)
            outputs.append(y)
        return self.head(torch.stack(outputs, 1))


STRANGERS: dict[type[nn.Module], Example] = {
    StateDict: one,
    CellDict: one,
    Einsum: one,
    Siamese: two,
    Decoder: with_words,
    Speaking: with_words,
    Sorted: with_lengths,
    Chunked: one,
    Structured: one,
    ByKeyword: by_keyword,
    Listed: one,
    Experts: one,
    FastWeights: one,
    TokenShift: one,
    Speaker: with_speaker,
    Buffered: one,
    Hierarchy: nested,
    Crossed: two,
    Tree: one,
    Generated: one,
    Residual: one,
}
"""Model -> the arguments of its `forward` for a batch size and a length."""
