"""Runs a model position by position: each layer that looks back takes what it has to remember, and gives it anew.

A model is surveyed once on whole sequences, which finds the layers that carry a state and refuses those that look
ahead (`survey`). `StepModel` then runs the same model on the next few positions: its layers read their states from a
holder beside the model and write the new ones there, so that it can be traced.

What else in a model may mix positions (a pooling, an embedding of the position's number) is not known
here: whoever uses a `StepModel` compares it with the whole model; `difference.first_difference` finds the place.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.errors import CompressorError, ExportError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.recurrent.layers import is_step_module
from compressor.streaming.attention import attend, batch_first
from compressor.streaming.convolutions import slide
from compressor.streaming.layers import CACHED, LEAVE_OUT, Arguments, Inputs, intercepted
from compressor.streaming.learned_query import Queries, answered
from compressor.streaming.recurrent import advance, handed_on, recur, recur_step
from compressor.streaming.variables import Replay

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.streaming.survey import Carrier, Survey


@dataclass
class _Holder:
    """The states during one run of the model, beside it."""

    survey: Survey
    states: dict[str, Tensor]
    positions: int
    plain: bool
    replay: Replay
    new: dict[str, Tensor] = field(default_factory=dict)
    queries: Queries = field(default_factory=Queries)
    _counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, module: nn.Module, original: Callable[..., Any], call: Arguments) -> Any:
        carrier = self.survey.carriers.get(name)
        if carrier is None:
            return original(module, *call.args, **call.kwargs)
        with self.replay.layer(name) as results:
            results.append(self._carry(name, module, original, call, carrier))
        return results[0]

    def _carry(
        self, name: str, module: nn.Module, original: Callable[..., Any], call: Arguments, carrier: Carrier
    ) -> Any:
        """What a layer that carries a state gives; its new states are kept."""
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        count = len(carrier.slots)
        slot = carrier.slots[index % count]
        entering = [self.states[spec.name] for spec in slot.specs]
        inside = carrier.per_position and index >= count
        if isinstance(module, LearnedQuery):
            result: Any = original(module, *call.args, **call.kwargs)
            self.queries.ask(name, module, call, slot, entering)
            return result
        if carrier.window is not None:
            result, new = slide(module, carrier.window, call, entering[0])
        elif carrier.handed is not None:
            complete = call if inside else carrier.handed.call(call, entering)
            result = original(module, *complete.args, **complete.kwargs)
            new = carrier.handed.states(result)
        else:
            states = handed_on(module, call.get(1, "hx")) if inside else entering
            result, new = self._advance(module, original, call, states)
        if not carrier.per_position or index >= count * (self.positions - 1):
            self.new |= {spec.name: value for spec, value in zip(slot.specs, new, strict=True)}
        return result

    def _advance(
        self, module: nn.Module, original: Callable[..., Any], call: Arguments, states: list[Tensor]
    ) -> tuple[Any, list[Tensor]]:
        if isinstance(module, AarenAttention):
            x = batch_first(module, call.get(1, "key"))  # (B, n, E)
            output, new = module.step(x, states)
            return (batch_first(module, output), None), list(new)
        if isinstance(module, CACHED):
            return attend(module, call, states)
        if isinstance(module, ConvertedRecurrent):
            return advance(module, call, states)
        if is_step_module(module):
            return recur_step(module, call, states)
        return recur(module, original, call, states, self.plain)


class StepModel(nn.Module):
    """A model that takes its inputs at the next `chunk` positions and all its states, and gives outputs and states.

    `forward(*inputs, *states)` gives a flat tuple: the model's outputs, then the new states in the order of
    `survey.states`.
    """

    def __init__(self, model: nn.Module, survey: Survey, *, chunk: int = 1, plain: bool = True) -> None:
        """Wrap `model`.

        Args:
            model: In evaluation mode.
            survey: What of it carries a state.
            chunk: Positions in a step, >= 1.
            plain: Recurrent layers are computed by plain operations, position by position; else by the layer itself.
        """
        super().__init__()
        self.model = model
        self._survey = survey
        self._chunk = chunk
        self._plain = plain

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Run one step."""
        specs = self._survey.states
        split = len(parts) - len(specs)
        states = {spec.name: part for spec, part in zip(specs, parts[split:], strict=True)}
        variables = [spec.name for spec in self._survey.of_variables]
        replay = Replay(self._survey.variables, [states[name] for name in variables], self._chunk)
        holder = _Holder(self._survey, states, self._chunk, self._plain, replay)
        own = [name for name, carrier in self._survey.carriers.items() if carrier.handed is not None]
        queries = answered(self.model, self._survey, holder.queries, holder.new)
        with intercepted(self.model, holder, own), queries, replay if variables else nullcontext():
            outputs = self.model(*self.complete(parts[:split]))
        holder.new.update((variables[index], value) for index, value in replay.new.items())
        missing = [spec.name for spec in specs if spec.name not in holder.new]
        if missing:
            raise ExportError(
                f"the model does not reach `{missing[0]}` in a step of {self._chunk} positions, but does in a sequence",
                hint=f"let `forward` take the same way at every length, {LEAVE_OUT}",
            )
        flat = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        if not all(isinstance(output, Tensor) for output in flat):
            raise ExportError(
                "in a step the model gives something that is not a tensor: weights of an attention are not given there",
                hint=f"do not return attention weights, {LEAVE_OUT}",
            )
        return (*flat, *(holder.new[spec.name] for spec in specs))

    def complete(self, inputs: Inputs) -> Inputs:
        """The inputs of the model, from those of a step."""
        return inputs

    def initial_states(self, batch: int) -> Inputs:
        """The states before the first position."""
        return tuple(spec.initial.expand(batch, *spec.initial.shape[1:]).clone() for spec in self._survey.states)


def explained(error: Exception) -> ExportError:
    """What the user is told of a model that fails on a step."""
    if isinstance(error, CompressorError):
        return ExportError(error.message, hint=error.hint)
    first = (str(error).splitlines() or [""])[0]
    return ExportError(
        f"the model does not run on a step: {type(error).__name__}: {first}",
        hint=f"`forward` must take any number of positions, also one, {LEAVE_OUT}",
    )
