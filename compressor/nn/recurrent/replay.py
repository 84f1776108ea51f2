"""What every layer inside a recurrent module sees at every step, which the module itself does not give out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_RUN = {"RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu, "GRU": torch.gru, "LSTM": torch.lstm}


@dataclass(frozen=True)
class LayerWeights:
    """The parameters of one layer in one direction: G gates, H units, I inputs; S is H, or P with a projection."""

    weight_ih: nn.Parameter
    """(G * H, I)"""
    weight_hh: nn.Parameter
    """(G * H, S)"""
    bias_ih: nn.Parameter | None
    bias_hh: nn.Parameter | None
    """(G * H,) each, or None."""
    weight_hr: nn.Parameter | None
    """(P, H), or None."""

    @property
    def present(self) -> list[Tensor]:
        """Those that there are, in PyTorch's order."""
        every = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, self.weight_hr)
        return [weight.detach() for weight in every if weight is not None]


def layer_weights(module: nn.RNNBase, layer: int, direction: int) -> LayerWeights:
    """The weights of one layer in one direction, the module's own parameters."""
    suffix = f"l{layer}" + ("_reverse" if direction else "")
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    return LayerWeights(*(module._parameters.get(f"{name}_{suffix}") for name in names))  # type: ignore[arg-type]


@dataclass(frozen=True)
class LayerRun:
    """One layer in one direction on one batch; time runs as this direction sees it, padding comes last."""

    mode: str
    layer: int
    direction: int
    weights: LayerWeights
    sequence: Tensor
    """(T, B, I)"""
    initial: tuple[Tensor, ...]
    """h_0 (1, B, S), and c_0 (1, B, H) of an LSTM."""
    valid: Tensor
    """(T, B), False past the end of a sequence."""

    @cached_property
    def outputs(self) -> Tensor:
        """h_t (T, B, S); what comes past the end of a sequence does not touch what comes before."""
        hx: Any = list(self.initial) if self.mode == "LSTM" else self.initial[0]
        biased = self.weights.bias_ih is not None
        run: Any = _RUN[self.mode]
        outputs: Tensor = run(self.sequence, hx, self.weights.present, biased, 1, 0.0, False, False, False)[0]
        return outputs

    @property
    def inputs(self) -> Tensor:
        """x_t of every valid step (N, I)."""
        return self.sequence[self.valid]

    @property
    def previous(self) -> Tensor:
        """h_{t-1} of every valid step (N, S), the initial state included."""
        return torch.cat([self.initial[0], self.outputs[:-1]])[self.valid]

    @property
    def projected(self) -> Tensor:
        """What `weight_hr` of an LSTM is applied to, o_t * tanh(c_t), at every valid step (N, H).

        i, f, g, o = blocks of W_ih x_t + W_hh h_{t-1} + b;  c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g).
        """
        weights = self.weights
        before = torch.cat([self.initial[0], self.outputs[:-1]])  # (T, B, S)
        gates = nn.functional.linear(self.sequence, weights.weight_ih, weights.bias_ih)  # (T, B, 4 H)
        gates = gates + nn.functional.linear(before, weights.weight_hh, weights.bias_hh)
        enter, forget, new, out = gates.chunk(4, dim=-1)
        kept, added = forget.sigmoid(), enter.sigmoid() * new.tanh()
        cell, hidden = self.initial[1][0], []
        for step in range(len(gates)):
            cell = kept[step] * cell + added[step]  # (B, H)
            hidden.append(out[step].sigmoid() * cell.tanh())
        return torch.stack(hidden)[self.valid]


def unroll(module: nn.RNNBase, inputs: Tensor | PackedSequence, hx: Any = None) -> Iterator[LayerRun]:
    """The runs of every layer and direction of one call, in the order of `h_n`, without dropout.

    A layer is computed no sooner than the next one, or the caller, asks for its outputs.
    """
    sequence, lengths = _padded(module, inputs)
    steps, batch = sequence.shape[:2]
    time = torch.arange(steps, device=sequence.device)[:, None]
    valid = time < lengths  # (T, B)
    backwards = torch.where(valid, lengths - 1 - time, time)  # where each step of a reversed sequence comes from
    states = _initial_states(module, hx, unbatched=isinstance(inputs, Tensor) and inputs.dim() == 2)
    directions = 2 if module.bidirectional else 1
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            weights = layer_weights(module, layer, direction)
            given = [kind[layer * directions + direction] for kind in states]
            run = LayerRun(
                module.mode,
                layer,
                direction,
                weights,
                _reordered(sequence, backwards) if direction else sequence,
                tuple(given) if given else _zeros(module.mode, weights, sequence, batch),
                valid,
            )
            yield run
            outputs.append((run, direction))
        if layer + 1 < module.num_layers:
            parts = [_reordered(run.outputs, backwards) if back else run.outputs for run, back in outputs]
            sequence = torch.cat(parts, dim=-1)


def _padded(module: nn.RNNBase, inputs: Tensor | PackedSequence) -> tuple[Tensor, Tensor]:
    """The batch (T, B, I) and its lengths (B,)."""
    if isinstance(inputs, PackedSequence):
        sequence, lengths = pad_packed_sequence(inputs)
        return sequence, lengths.to(sequence.device)
    if inputs.dim() == 2:
        inputs = inputs.unsqueeze(1)
    elif module.batch_first:
        inputs = inputs.transpose(0, 1)
    steps, batch = inputs.shape[:2]
    return inputs, torch.full((batch,), steps, device=inputs.device)


def _initial_states(module: nn.RNNBase, hx: Any, *, unbatched: bool) -> list[list[Tensor]]:
    """For h and, in an LSTM, c: the given states (1, B, S) of every layer and direction; empty where none are given."""
    if hx is None:
        return []
    kinds: Sequence[Any] = hx if module.mode == "LSTM" else [hx]
    return [[part[None, None] if unbatched else part[None] for part in kind] for kind in kinds]


def _zeros(mode: str, weights: LayerWeights, like: Tensor, batch: int) -> tuple[Tensor, ...]:
    state = like.new_zeros(1, batch, weights.weight_hh.size(1))
    if mode != "LSTM":
        return (state,)
    units = weights.weight_hh.size(0) // 4
    return (state, like.new_zeros(1, batch, units))


def _reordered(sequence: Tensor, order: Tensor) -> Tensor:
    """(T, B, F) with step `order[t, b]` at t; its own inverse for a reversal."""
    return sequence.gather(0, order.unsqueeze(-1).expand_as(sequence))
