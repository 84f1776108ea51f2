"""Recurrent layers and cells over the next few positions, and their states before the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from compressor.errors import ExportError
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.layers import cell_of, is_layer, is_step_module, parts, state_widths
from compressor.nn.recurrent.packed import packed_like
from compressor.streaming.layers import LEAVE_OUT, Arguments

if TYPE_CHECKING:
    from compressor.nn.converted.recurrent import ConvertedRecurrent
    from compressor.nn.recurrent.cells import RecurrentLayer, StepModule

Step = Callable[[Tensor, Sequence[Tensor]], list[Tensor]]
"""One position of one layer: x (B, I) and its states to its new states."""


def initial_states(name: str, module: Any, initial: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    """The name of each state of a layer or cell, and its value (1, H) before the first position.

    Args:
        name: Of the module.
        module: The layer or cell.
        initial: What it was given as an initial state in each call, or None.

    Raises:
        ExportError: An initial state depends on the inputs.
    """
    cell = cell_of(module)
    layers = 1 if is_step_module(module) else module.num_layers
    for layer in range(layers):
        for index, (kind, width) in enumerate(zip(cell.states, state_widths(module), strict=True)):
            rows = [None if hx is None else _of_layer(cell.unpack(hx)[index], layer) for hx in initial]
            yield f"{kind}.{layer}" if layers > 1 else kind, _constant(name, module, width, rows)


def _of_layer(state: Tensor, layer: int) -> Tensor:
    """The initial state (B, H) of one layer, from (L, B, H) or (B, H)."""
    return state[layer] if state.dim() == 3 else state


def _constant(name: str, module: nn.Module, width: int, rows: Sequence[Tensor | None]) -> Tensor:
    """The one value (1, H) that every sample started from; zeros if nothing was given."""
    known = [row for row in rows if row is not None]
    if not known:
        return next(module.parameters()).new_zeros(1, width)
    first = known[0][:1]
    if len(known) != len(rows) or any(not torch.equal(row, first.expand_as(row)) for row in known):
        raise ExportError(
            f"the initial state of `{name}` depends on the model's inputs, so there is no value to start a stream from",
            hint="a model that takes and gives its states streams with its own file, called with a few positions at a "
            f"time: leave `stream` out; otherwise start `{name}` from zeros or from a parameter",
        )
    return first.clone()


def handed_on(module: nn.Module, hx: Any) -> list[Tensor]:
    """The states that a model itself gives a layer or cell, layer by layer."""
    kinds = cell_of(module).unpack(hx)
    if is_step_module(module):
        return kinds
    return [kind[layer] for layer in range(kinds[0].shape[0]) for kind in kinds]


def recur(
    module: nn.Module, original: Callable[..., Any], call: Arguments, states: list[Tensor], plain: bool
) -> tuple[Any, list[Tensor]]:
    """A recurrent layer over the next positions: its result and the new states, (B, H) each.

    Args:
        module: The layer.
        original: Its own `forward`.
        call: What it is given.
        states: (B, H) each, layer by layer.
        plain: Compute it by plain operations, position by position.

    Raises:
        ExportError: It is given a sequence without a batch axis.
    """
    assert is_layer(module) or isinstance(module, LowRankRecurrent)
    cell, x = cell_of(module), call.get(0, "input")
    kinds = len(cell.states)
    padded = getattr(x, "padded", None) if isinstance(x, PackedSequence) and type(x) is not PackedSequence else None
    if plain and type(x) is not PackedSequence:
        axis = 1 if module.batch_first and padded is None else 0
        sequence = x if padded is None else padded  # what represents a packed sequence in a trace has time first
        if sequence.dim() != 3:
            raise ExportError(
                "a recurrent layer is given a sequence without a batch axis", hint=f"give it one, {LEAVE_OUT}"
            )
        output, new = _run_plain(module, sequence, axis, states)
        output = output if padded is None else x.with_steps(output)
        return (output, cell.pack([torch.stack(new[kind::kinds]) for kind in range(kinds)])), new  # (L, B, H) each
    initial = cell.pack([torch.stack(states[kind::kinds]) for kind in range(kinds)])
    output, last = original(module, x, initial)
    return (output, last), handed_on(module, last)


def advance(module: ConvertedRecurrent, call: Arguments, states: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """A converted layer over the next positions: its result and the new states.

    Raises:
        ExportError: It is given a sequence without a batch axis.
    """
    x: Any = call.get(0, "input")
    if isinstance(x, PackedSequence):  # of sequences that are as long as the step
        stand_in: Any = x if type(x) is not PackedSequence else None  # what represents one in a trace
        padded, lengths = pad_packed_sequence(x) if stand_in is None else (stand_in.padded, stand_in.lengths)
        (output, last), new = module.step(_time_first(module, padded), states)
        output = _time_first(module, output)
        result = packed_like(x, output, lengths) if stand_in is None else stand_in.with_steps(output)
        return (result, last), new
    if x.dim() != 3:
        raise ExportError(
            "a converted layer is given a sequence without a batch axis", hint=f"give it one, {LEAVE_OUT}"
        )
    return module.step(x, states)


def _time_first(module: ConvertedRecurrent, x: Tensor) -> Tensor:
    """(T, B, F) in the layer's own order of axes, or back."""
    return x.transpose(0, 1) if module.batch_first else x


def recur_step(module: StepModule, call: Arguments, states: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """A module for one step at one position: its result and the new states."""
    [part] = parts(module)
    new = part.cell.step(call.get(0, "input"), states, part.weights(module))
    return part.cell.pack(new), new


def _run_plain(
    module: RecurrentLayer | LowRankRecurrent, x: Tensor, axis: int, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A layer over the few positions of x along `axis`: its output, laid out as x, and the new states."""
    positions = [x.squeeze(axis)] if x.shape[axis] == 1 else [x.select(axis, t) for t in range(x.shape[axis])]
    kinds = len(cell_of(module).states)
    new: list[Tensor] = []
    for layer in range(module.num_layers):
        state = states[kinds * layer : kinds * (layer + 1)]
        step = _step_of_layer(module, layer)
        outputs = []
        for position in positions:
            state = step(position, state)
            outputs.append(state[0])
        positions = outputs
        new += state
    output = positions[0].unsqueeze(axis) if len(positions) == 1 else torch.stack(positions, axis)
    return output, new


def _step_of_layer(module: RecurrentLayer | LowRankRecurrent, layer: int) -> Step:
    if isinstance(module, LowRankRecurrent):
        return partial(module.step, layer, 0)
    part = parts(module)[layer]
    return partial(part.cell.step, weights=part.weights(module))
