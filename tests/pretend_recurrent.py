"""Recurrent layers and cells of PyTorch as plain operations, for tensors of a device that has no kernel for them."""

from __future__ import annotations

import itertools

import torch
from torch.nn.functional import linear


def _lstm(x, state, w_ih, w_hh, b_ih, b_hh, w_hr):
    h, c = state
    i, f, g, o = (linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    h = h if w_hr is None else linear(h, w_hr)
    return h, (h, c)


def _gru(x, h, w_ih, w_hh, b_ih, b_hh, _):
    i_r, i_z, i_n = linear(x, w_ih, b_ih).chunk(3, -1)
    h_r, h_z, h_n = linear(h, w_hh, b_hh).chunk(3, -1)
    z = (i_z + h_z).sigmoid()
    h = (1 - z) * (i_n + (i_r + h_r).sigmoid() * h_n).tanh() + z * h
    return h, h


def _rnn(activation):
    def step(x, h, w_ih, w_hh, b_ih, b_hh, _):
        h = activation(linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh))
        return h, h

    return step


_STEPS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn(torch.tanh), "rnn_relu": _rnn(torch.relu)}


def _direction(step, x, state, weights, *, backwards):
    """x (T, B, I) -> outputs (T, B, H), last state; the weights are those of one layer and direction."""
    biases = weights[2:4] if len(weights) >= 4 else (None, None)
    projection = weights[-1] if len(weights) in (3, 5) else None
    outputs = []
    for one in reversed(x.unbind(0)) if backwards else x.unbind(0):
        output, state = step(one, state, *weights[:2], *biases, projection)
        outputs.append(output)
    return torch.stack(outputs[::-1] if backwards else outputs), state


def _layers(kind, x, states, weights, layers, bidirectional):
    """x (T, B, I), states of (L * D, B, H) each -> outputs, last states."""
    directions = 2 if bidirectional else 1
    count = len(weights) // (layers * directions)
    finals = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            state = tuple(part[k] for part in states) if kind == "lstm" else states[0][k]
            own = weights[k * count : (k + 1) * count]
            output, last = _direction(_STEPS[kind], x, state, own, backwards=direction == 1)
            outputs.append(output)
            finals.append(last if kind == "lstm" else (last,))
        x = torch.cat(outputs, -1)
    return x, *(torch.stack(parts) for parts in zip(*finals, strict=True))


def _packed(kind, data, sizes, states, weights, layers, bidirectional):
    """Sequence by sequence: a packed one has no rectangle of its own."""
    starts = [0, *itertools.accumulate(sizes)]
    results = []
    for row in range(sizes[0]):
        rows = torch.tensor([starts[t] + row for t, size in enumerate(sizes) if size > row]).to(data.device)
        own = [part[:, row : row + 1] for part in states]
        results.append(_layers(kind, data.index_select(0, rows)[:, None], own, weights, layers, bidirectional))
    steps = [torch.stack([results[row][0][t, 0] for row in range(size)]) for t, size in enumerate(sizes)]
    return torch.cat(steps), *(torch.cat(parts, 1) for parts in zip(*(r[1:] for r in results), strict=True))


def _layer(kind):
    def run(x, states, weights, biased, layers, dropout, training, bidirectional, batch_first):
        x = x.transpose(0, 1) if batch_first else x
        output, *last = _layers(kind, x, _listed(kind, states), weights, layers, bidirectional)
        return output.transpose(0, 1) if batch_first else output, *last

    return run


def _packed_layer(kind):
    def run(data, sizes, states, weights, biased, layers, dropout, training, bidirectional):
        return _packed(kind, data, sizes.tolist(), _listed(kind, states), weights, layers, bidirectional)

    return run


def _listed(kind, states):
    return states if kind == "lstm" else (states,)


def _cell(kind):
    def run(x, state, w_ih, w_hh, b_ih=None, b_hh=None):
        return _STEPS[kind](x, state, w_ih, w_hh, b_ih, b_hh, None)[1]

    return run


def install(key):
    """Let the recurrent operators of PyTorch run so under a dispatch key, above its derivatives.

    Dropout between layers is left out: what is compared with the CPU draws none.
    """
    library = torch.library.Library("aten", "IMPL")
    for kind in _STEPS:
        library.impl(f"{kind}.input", _layer(kind), key)
        library.impl(f"{kind}.data", _packed_layer(kind), key)
        library.impl(f"{kind}_cell", _cell(kind), key)
    return library
