"""What every layer inside a recurrent module sees at every step, which the module itself does not give out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from compressor.nn.recurrent.compact import CompactRecurrent
from compressor.nn.recurrent.layers import Part, cell_of, directions, part_weights, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.nn.recurrent.cells import RecurrentLayer, Weights


@dataclass(frozen=True)
class LayerRun:
    """One layer in one direction on one batch; time runs as this direction sees it, padding comes last."""

    part: Part
    weights: Weights
    sequence: Tensor
    """(T, B, I)"""
    initial: tuple[Tensor, ...]
    """h_0 (1, B, S), and c_0 (1, B, H) of an LSTM."""
    valid: Tensor
    """(T, B), False past the end of a sequence."""

    @cached_property
    def outputs(self) -> Tensor:
        """h_t (T, B, S); what comes past the end of a sequence does not touch what comes before."""
        return self.part.cell.run(self.sequence, self.initial, self.weights)

    @property
    def forward_outputs(self) -> Tensor:
        """The outputs (T, B, S) in the order of the sequence, whichever way this direction runs."""
        return _reordered(self.outputs, _backwards(self.valid)) if self.part.direction else self.outputs

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
        """What `weight_hr` of an LSTM is applied to, o_t * tanh(c_t), at every valid step (N, H)."""
        before = torch.cat([self.initial[0], self.outputs[:-1]])  # (T, B, S)
        from_input = nn.functional.linear(self.sequence, self.weights["weight_ih"], self.weights.get("bias_ih"))
        from_state = nn.functional.linear(before, self.weights["weight_hh"], self.weights.get("bias_hh"))
        states, hidden = [state[0] for state in self.initial], []
        for step in range(len(before)):
            states = self.part.cell.update(from_input[step], from_state[step], states)  # (B, H) each
            hidden.append(states[0])
        return torch.stack(hidden)[self.valid]


def unroll(
    module: RecurrentLayer | CompactRecurrent, inputs: Tensor | PackedSequence, hx: Any = None
) -> Iterator[LayerRun]:
    """The runs of every layer and direction of one call, in the order of `h_n`, without dropout.

    A layer is computed no sooner than the next one, or the caller, asks for its outputs.
    """
    sequence, lengths = _padded(module, inputs)
    steps, batch = sequence.shape[:2]
    time = torch.arange(steps, device=sequence.device)[:, None]
    valid = time < lengths  # (T, B)
    backwards = _backwards(valid)
    states = _initial_states(module, hx, unbatched=isinstance(inputs, Tensor) and inputs.dim() == 2)
    runs: list[LayerRun] = []
    for index, (part, weights) in enumerate(_weighted_parts(module)):
        if part.layer and not part.direction:
            sequence = torch.cat([run.forward_outputs for run in runs], dim=-1)
            runs = []
        initial = [kind[index] for kind in states] or [
            sequence.new_zeros(1, batch, width) for width in _state_widths(part, weights)
        ]
        turned = _reordered(sequence, backwards) if part.direction else sequence
        runs.append(LayerRun(part, weights, turned, tuple(initial), valid))
        yield runs[-1]


def _weighted_parts(module: RecurrentLayer | CompactRecurrent) -> Iterator[tuple[Part, Weights]]:
    """The parts in the order of `h_n`, with their weights; those of a compact layer have no names of their own."""
    if not isinstance(module, CompactRecurrent):
        yield from ((part, part.weights(module)) for part in parts(module))
        return
    for layer in range(module.num_layers):
        for direction in range(directions(module)):
            yield Part(layer, direction, module.cell, {}), part_weights(module, layer, direction)


def _state_widths(part: Part, weights: Weights) -> list[int]:
    """The features of each state."""
    units = weights["weight_hh"].shape[0] // part.cell.gates.count
    outputs = weights["weight_hr"].shape[0] if "weight_hr" in weights else units
    return [outputs if name == "h" else units for name in part.cell.states]


def _backwards(valid: Tensor) -> Tensor:
    """Where each step of a reversed sequence comes from, (T, B), of a mask of the steps (T, B)."""
    time = torch.arange(len(valid), device=valid.device)[:, None]
    return torch.where(valid, valid.sum(0) - 1 - time, time)


def _padded(module: RecurrentLayer | CompactRecurrent, inputs: Tensor | PackedSequence) -> tuple[Tensor, Tensor]:
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


def _initial_states(module: RecurrentLayer | CompactRecurrent, hx: Any, *, unbatched: bool) -> list[list[Tensor]]:
    """For every kind of state, those (1, B, S) of every layer and direction; empty if none are given."""
    if hx is None:
        return []
    kinds = cell_of(module).unpack(hx)
    return [[part[None, None] if unbatched else part[None] for part in kind] for kind in kinds]


def _reordered(sequence: Tensor, order: Tensor) -> Tensor:
    """(T, B, F) with step `order[t, b]` at t; its own inverse for a reversal."""
    return sequence.gather(0, order.unsqueeze(-1).expand_as(sequence))
