"""Reads strings with a recurrent model symbol by symbol: its states, as one vector each, and its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, MethodError, first_line
from compressor.nn.attention.plain import plain_attention
from compressor.nn.hooks import hooked
from compressor.streaming.step import StepModel
from compressor.streaming.survey import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Example = Callable[[int, int], tuple[Tensor, ...]]
    """Inputs of the model at a batch size and a length."""


_TOLERANCE = 1e-3
"""Between the outputs of steps and of whole strings, relative to their largest."""
MOST_SYMBOLS = 512
_OUTPUTS = "let the model give one tensor of scores: (B, C) for the string, or (B, T, C) for each symbol"
_KIND = "an automaton reads symbols: one input of integers (B, T), such as characters or codes of events"


@dataclass(frozen=True)
class Reading:
    """What a model did on strings of one batch."""

    strings: Tensor
    """(B, T)."""
    states: Tensor
    """After each symbol (B, T, D)."""
    outputs: Tensor
    """After each symbol (B, T, C)."""


class Reader:
    """A model as a machine: a state, a symbol, the next state and the outputs."""

    def __init__(self, model: nn.Module, example: Example, lengths: tuple[int, int]) -> None:
        """Find the states.

        Args:
            model: In evaluation mode, on the CPU.
            example: Gives inputs.
            lengths: Two lengths that the model takes.

        Raises:
            MethodError: The model does not read symbols, or is not a function of a state of fixed size and a symbol.
        """
        _check_inputs(example(2, lengths[1]))
        self.each = _gives_each(model, example, lengths)
        self.symbols = _symbols(model, example(64, lengths[1]))
        try:
            with plain_attention(), torch.no_grad():
                found = survey(model, lambda batch, length: _strings(batch, length, self.symbols), lengths)
        except CompressorError as error:
            raise MethodError(f"the model has no state to make an automaton of: {error.message}") from error
        except Exception as error:
            raise MethodError(f"the model does not run step by step: {first_line(error)}", hint=_KIND) from error
        growing = [spec.name for spec in found.states if spec.growing_axis is not None]
        if not found.states or growing:
            listed = f"the state `{growing[0]}` grows with the string" if growing else "it carries no state"
            raise MethodError(
                f"the model is not a recurrent one with states of fixed size: {listed}",
                hint="automata are made of RNN, GRU and LSTM models and of cells of your own",
            )
        self._step = StepModel(model, found)
        self._shapes = [spec.initial.shape[1:] for spec in found.states]
        self._types = [spec.initial.dtype for spec in found.states]

    @property
    def start(self) -> Tensor:
        """The state before the first symbol (D,)."""
        return _flat(self._step.initial_states(1))[0]

    def step(self, states: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """States (N, D) and symbols (N,) to the next states (N, D) and the outputs after them (N, C)."""
        sizes = [shape.numel() for shape in self._shapes]
        parts = [
            part.unflatten(1, shape).to(kind) if shape else part.squeeze(1).to(kind)
            for part, shape, kind in zip(states.split(sizes, 1), self._shapes, self._types, strict=True)
        ]
        with torch.no_grad(), plain_attention():
            outputs, *after = self._step(symbols[:, None], *parts)
        return _flat(after), outputs[:, -1] if self.each else outputs

    def read(self, strings: Tensor) -> Reading:
        """Read strings (B, T) together."""
        states, every, given = self.start.expand(len(strings), -1), [], []
        for position in range(strings.shape[1]):
            states, outputs = self.step(states, strings[:, position])
            every.append(states)
            given.append(outputs)
        return Reading(strings, torch.stack(every, 1), torch.stack(given, 1))

    def check(self, model: nn.Module, reading: Reading) -> None:
        """Refuse a model whose outputs for whole strings are not those after its last step."""
        with torch.no_grad(), plain_attention():
            whole = model(reading.strings)
        mine = reading.outputs if self.each else reading.outputs[:, -1]
        error = float((whole - mine).abs().max())
        if not error <= _TOLERANCE * max(1.0, float(whole.abs().max())):
            raise MethodError(
                f"the outputs of the model are not a function of its last state: read symbol by symbol they differ by "
                f"{error:.3g}",
                hint="an automaton has no pooling over the string: let the model read its output off the last state",
            )


def _check_inputs(example: tuple[Tensor, ...]) -> None:
    if len(example) != 1 or example[0].is_floating_point() or example[0].dim() != 2:
        form = ", ".join(f"{str(part.dtype).removeprefix('torch.')} {tuple(part.shape)}" for part in example)
        raise MethodError(f"the model's inputs are not one string of symbols, but {form}", hint=_KIND)


def _gives_each(model: nn.Module, example: Example, lengths: tuple[int, int]) -> bool:
    """Whether there is an output for each symbol, not one for the whole string."""
    forms = []
    for length in lengths:
        with torch.no_grad(), plain_attention():
            outputs = model(*example(2, length))
        if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
            raise MethodError("the outputs of the model are not one tensor of scores", hint=_OUTPUTS)
        forms.append((outputs.dim(), outputs.dim() == 3 and outputs.shape[1] == length))
    if set(forms) == {(3, True)}:
        return True
    if set(forms) != {(2, False)}:
        raise MethodError("the model gives neither scores for a string nor scores for each symbol", hint=_OUTPUTS)
    return False


def _flat(parts: Sequence[Tensor]) -> Tensor:
    """States (N, ...) side by side (N, D)."""
    return torch.cat([part.reshape(len(part), -1).float() for part in parts], 1)


def _strings(batch: int, length: int, symbols: int) -> tuple[Tensor]:
    return (torch.randint(symbols, (batch, length)),)


def _symbols(model: nn.Module, example: tuple[Tensor, ...]) -> int:
    """How many symbols the model knows: those of the table that it looks them up in, else those of the example."""
    seen: list[int] = []
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    handles = (
        module.register_forward_pre_hook(lambda each, _args: seen.append(each.num_embeddings)) for module in embeddings
    )
    with hooked(handles), torch.no_grad(), plain_attention():
        model(*example)
    count = max(seen) if seen else int(example[0].max()) + 1
    if count > MOST_SYMBOLS:
        raise MethodError(
            f"the model knows {count} symbols, and a table has a column for each of at most {MOST_SYMBOLS}",
            hint="automata are for small alphabets: characters, codes of events, gestures",
        )
    return count
