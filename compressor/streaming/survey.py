"""Which layers of a model carry a state from position to position, and what each state is before the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import ExportError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.recurrent.layers import is_step_module
from compressor.streaming.attention import cache_widths, is_fixed_cross, refuse_looking_ahead
from compressor.streaming.convolutions import Window, is_plain, window
from compressor.streaming.layers import ATTENTION, CACHED, LEAVE_OUT, WINDOWED, Arguments, Inputs, intercepted
from compressor.streaming.own_cells import Handed, candidates, handed
from compressor.streaming.own_cells import initial_states as own_initial_states
from compressor.streaming.recorded import Recorder
from compressor.streaming.recurrent import initial_states
from compressor.streaming.variables import Variable, find_variables

Example = Callable[[int, int], Inputs]
"""(batch, length) -> the inputs of the whole model."""

_BATCH = 2
"""Samples in a survey: states that differ between them are not constant."""


@dataclass(frozen=True)
class StateSpec:
    """One state of a model."""

    name: str
    """`encoder.rnn.h`."""
    initial: Tensor
    """Its value before the first position, for one sample: (1, ...)."""
    growing_axis: int | None = None
    """The axis that has no entries at first and one more with every position."""


@dataclass(frozen=True)
class Slot:
    """The states of one place in `forward` where a layer is called: the same layer twice is two slots."""

    specs: tuple[StateSpec, ...]


@dataclass(frozen=True)
class Carrier:
    """A layer that carries a state."""

    slots: tuple[Slot, ...]
    per_position: bool
    """Called once a position in each slot, as a cell in a loop is, and not once a sequence."""
    handed: Handed | None = None
    """What a cell of the model's own code hands on; None for a layer that is known."""
    window: Window | None = None
    """How a convolution runs over time; None for any other layer."""


@dataclass(frozen=True)
class Survey:
    """What of a model carries a state, by the names of the modules, in the order in which they are first called."""

    carriers: dict[str, Carrier]
    variables: tuple[Variable, ...] = ()
    """What the model's own code keeps in variables."""

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """All states, in order; those in variables are the last."""
        layers = [spec for carrier in self.carriers.values() for slot in carrier.slots for spec in slot.specs]
        return (*layers, *self.of_variables)

    @property
    def of_variables(self) -> tuple[StateSpec, ...]:
        """The states in variables, each by a name of its own."""
        labels = [variable.label for variable in self.variables]
        return tuple(
            StateSpec(label if labels.count(label) == 1 else f"{label}.{labels[:index].count(label)}", variable.initial)
            for index, (label, variable) in enumerate(zip(labels, self.variables, strict=True))
        )


def survey(model: nn.Module, example: Example, lengths: tuple[int, int]) -> Survey:
    """Find the layers that carry a state.

    Args:
        model: In evaluation mode.
        example: Gives inputs; of those without an axis of time it has to give other values each time.
        lengths: Two lengths, different if the model takes several.

    Raises:
        ExportError: A layer looks ahead, or starts from a state that depends on the inputs.
    """
    _refuse_backward_directions(model)
    watches = [_watch(model, example(_BATCH, length)) for length in lengths]
    carriers: dict[str, Carrier] = {}
    for name in watches[0].calls:
        calls = [watch.calls.get(name, []) for watch in watches]
        if isinstance(model.get_submodule(name), WINDOWED):
            carrier = _convolution(name, model.get_submodule(name), calls, lengths)
        elif name not in watches[0].results:
            carrier = _carrier(name, model.get_submodule(name), calls, lengths)
        elif any(name.startswith(f"{other}.") for other in carriers):
            carrier = None  # its states are those of the cell around it
        else:
            results = [watch.results.get(name, []) for watch in watches]
            carrier = _own_carrier(name, model.get_submodule(name), calls, results, lengths)
        if carrier is not None:
            carriers[name] = carrier
    runs = [_recorded(model, example(_BATCH, length), carriers) for length in lengths]
    return Survey(carriers, find_variables(runs, lengths, _BATCH))


def _recorded(model: nn.Module, inputs: Inputs, carriers: Mapping[str, Carrier]) -> Recorder:
    """A run in which the calls of the model's own code are kept, those within carriers excepted."""
    recorder = Recorder(inputs)

    def run(name: str, module: nn.Module, original: Callable[..., Any], call: Arguments) -> Any:
        if name not in carriers:
            return original(module, *call.args, **call.kwargs)
        with recorder.layer(name) as results:
            results.append(original(module, *call.args, **call.kwargs))
        return results[0]

    own = [name for name, carrier in carriers.items() if carrier.handed is not None]
    with torch.no_grad(), recorder, intercepted(model, run, own):
        model(*inputs)
    return recorder


def _convolution(
    name: str, module: nn.Module, calls: Sequence[list[Arguments]], lengths: tuple[int, int]
) -> Carrier | None:
    """A convolution over time; None if it runs over something else."""
    if len(calls[0]) != len(calls[1]) or not is_plain(module):
        return None
    found = window(name, module, calls, lengths, _BATCH)
    if found is None:
        return None
    weight = next(module.parameters())
    slots = len(calls[0])
    places = [
        Slot((StateSpec(f"{name}.x" if slots == 1 else f"{name}.call.{slot}.x", weight.new_zeros(found.shape)),))
        for slot in range(slots)
    ]
    return Carrier(tuple(places), per_position=False, window=found)


def _own_carrier(
    name: str,
    module: nn.Module,
    calls: Sequence[list[Arguments]],
    results: Sequence[list[Any]],
    lengths: tuple[int, int],
) -> Carrier | None:
    """A module of the model's own code that is given at each position what it gave at the one before; else None."""
    slots = len(calls[0]) // lengths[0]
    if not slots or [len(few) for few in calls] != [slots * length for length in lengths]:
        return None
    found = {
        handed(few[slot::slots], made[slot::slots])
        for few, made in zip(calls, results, strict=True)
        for slot in range(slots)
    }
    if len(found) != 1 or (own := found.pop()) is None:
        return None
    places = []
    for slot in range(slots):
        base = name if slots == 1 else f"{name}.call.{slot}"
        few = [each[slot::slots] for each in calls]
        states = own_initial_states(name, module, own, few, _BATCH)
        places.append(Slot(tuple(StateSpec(f"{base}.{label}", value) for label, value in states)))
    return Carrier(tuple(places), per_position=True, handed=own)


def _refuse_backward_directions(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, ConvertedRecurrent) and module.lookahead:
            raise ExportError(
                f"`{name}` looks {module.lookahead} positions ahead, so there is no step for one position",
                hint=f"convert with `lookahead: 0`, {LEAVE_OUT}",
            )
        if getattr(module, "bidirectional", False) is True:
            raise ExportError(
                f"`{name or '(model)'}` is bidirectional: its backward direction starts at the end of the sequence, "
                "so there is no step for one position",
                hint=f"train the model with bidirectional=False, {LEAVE_OUT}",
            )


@dataclass
class _Watch:
    """Runs every layer as always and keeps its calls."""

    own: frozenset[str]
    """Modules of the model's own code whose results are kept as well."""
    calls: dict[str, list[Arguments]] = field(default_factory=dict)
    results: dict[str, list[Any]] = field(default_factory=dict)

    def __call__(self, name: str, module: nn.Module, original: Callable[..., Any], call: Arguments) -> Any:
        self.calls.setdefault(name, []).append(call)
        result = original(module, *call.args, **call.kwargs)
        if name in self.own:
            self.results.setdefault(name, []).append(result)
        return result


def _watch(model: nn.Module, inputs: Inputs) -> _Watch:
    watch = _Watch(frozenset(candidates(model)))
    with torch.no_grad(), intercepted(model, watch, watch.own):
        model(*inputs)
    return watch


def _carrier(
    name: str, module: nn.Module, calls: Sequence[list[Arguments]], lengths: tuple[int, int]
) -> Carrier | None:
    if isinstance(module, ATTENTION) and all(is_fixed_cross(module, call) for few in calls for call in few):
        return None
    counts = [len(few) for few in calls]
    per_position = is_step_module(module) or counts[0] != counts[1]
    slots = counts[0] // lengths[0] if per_position else counts[0]
    expected = [slots * length if per_position else slots for length in lengths]
    if counts != expected or not slots:
        raise ExportError(
            f"`{name}` is called {counts[0]} times at length {lengths[0]} and {counts[1]} times at length {lengths[1]}",
            hint=f"call it once for the sequence or once for each position, {LEAVE_OUT}",
        )
    places = []
    for slot in range(slots):
        base = name if slots == 1 else f"{name}.call.{slot}" if name else f"call.{slot}"
        places.append(Slot(tuple(_specs(base, name, module, [few[slot] for few in calls]))))
    if isinstance(module, ATTENTION):  # of a `LearnedQuery` only the parity check can see what it is shown
        for call in (call for few in calls for call in few):
            refuse_looking_ahead(name, module, call)
    return Carrier(tuple(places), per_position)


def _specs(base: str, name: str, module: nn.Module, calls: Sequence[Arguments]) -> Iterator[StateSpec]:
    """The states of one slot, with their values before the first position."""
    prefix = f"{base}." if base else ""
    if isinstance(module, (AarenAttention, LearnedQuery)):
        for kind, state in zip(module.state_names, module.initial_state(1), strict=True):
            yield StateSpec(prefix + kind, state)
        return
    if isinstance(module, ConvertedRecurrent):
        for kind, state in module.initial_states():
            yield StateSpec(prefix + kind, state)
        return
    if isinstance(module, CACHED):
        key, value = cache_widths(module)
        weight = next(module.parameters())
        for kind, width in (("k", key), ("v", value)):
            yield StateSpec(prefix + kind, weight.new_zeros(1, module.num_heads, 0, width), growing_axis=2)
        return
    for suffix, initial in initial_states(name, module, [call.get(1, "hx") for call in calls]):
        yield StateSpec(prefix + suffix, initial)
