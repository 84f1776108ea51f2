"""Cells that the model's own code calls at every position: what they are given of what they gave at the one before.

Nothing is known of such a cell but its calls. An argument that is, at every position after the first, the same tensor
as a part of its last result is a state.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import KeyPath, MappingKey, TreeSpec, tree_flatten_with_path, tree_leaves, tree_unflatten

from compressor.errors import ExportError
from compressor.nn.automaton import AutomatonStep
from compressor.nn.own_code import is_own
from compressor.streaming.layers import LEAVE_OUT, STATEFUL, WINDOWED, Arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Handed:
    """The states of a cell as places in its arguments and in its result."""

    taken: tuple[KeyPath, ...]
    given: tuple[int, ...]
    """For each of `taken`, which tensor of the result it is at the next position."""
    places: tuple[KeyPath, ...]
    """Of all arguments, where a state is given."""
    form: TreeSpec

    def call(self, call: Arguments, states: Sequence[Tensor]) -> Arguments:
        """A call with these states instead of its own, also if it has none."""
        leaves = _leaves(call) | dict(zip(self.taken, states, strict=True))
        args, kwargs = tree_unflatten([leaves.get(place) for place in self.places], self.form)
        return Arguments(args, kwargs)

    def states(self, result: Any) -> list[Tensor]:
        """The new states in a result."""
        leaves = tree_leaves(result)
        return [leaves[place] for place in self.given]


def candidates(model: nn.Module) -> list[str]:
    """Modules of the model's own code that may be cells: they hold no layer that carries a state by itself."""
    return [
        name
        for name, module in model.named_modules()
        if name
        and _may_be_cell(module)
        and not isinstance(module, WINDOWED)
        and not any(isinstance(part, STATEFUL) for part in module.modules())
    ]


def _may_be_cell(module: nn.Module) -> bool:
    return is_own(module) or isinstance(module, AutomatonStep)


def handed(calls: Sequence[Arguments], results: Sequence[Any]) -> Handed | None:
    """What of each result comes back in the next call; None if nothing does, or not always the same."""
    found = {_pairs(call, before) for call, before in zip(calls[1:], results, strict=False)}
    if len(found) != 1 or not (pairs := found.pop()):
        return None
    places, form = tree_flatten_with_path((calls[1].args, calls[1].kwargs))
    taken, given = zip(*pairs, strict=True)
    return Handed(taken, given, tuple(place for place, _ in places), form)


def _pairs(call: Arguments, before: Any) -> tuple[tuple[KeyPath, int], ...]:
    """Places in the arguments of a call and in the result before it that hold the same tensor."""
    made = tree_leaves(before)
    pairs = []
    for place, value in _leaves(call).items():
        index = next((index for index, part in enumerate(made) if _same(part, value)), None)
        if index is not None:
            pairs.append((place, index))
    return tuple(pairs)


def initial_states(
    name: str, module: nn.Module, handed: Handed, calls: Sequence[Sequence[Arguments]], batch: int
) -> Iterator[tuple[str, Tensor]]:
    """The name of each state of a cell, and its value (1, ...) before the first position.

    Args:
        name: Of the cell.
        module: The cell.
        handed: Its states.
        calls: Of several runs, the calls of the cell position by position. Where the first one is given no state, it is
            taken to begin at zeros; whoever uses a step compares it with the whole model.
        batch: Samples in a run.

    Raises:
        ExportError: A state depends on the inputs, or its first axis is not the batch.
    """
    for place in handed.taken:
        later, label = _leaves(calls[0][1])[place], _label(module, place)
        if later.dim() == 0 or later.size(0) != batch:
            raise ExportError(
                f"the state `{label}` of `{name}` is of shape {tuple(later.shape)}, whose first axis is not the batch "
                f"of {batch}",
                hint=f"give `{name}` states of the form (batch, ...), {LEAVE_OUT}",
            )
        firsts = [_leaves(few[0]).get(place) for few in calls]
        known = [first for first in firsts if isinstance(first, Tensor)]
        if not known:
            yield label, torch.zeros_like(later[:1])
            continue
        value = known[0][:1]
        if len(known) != len(firsts) or any(not torch.equal(first, value.expand_as(first)) for first in known):
            raise ExportError(
                f"the state `{label}` of `{name}` depends on the model's inputs at first, so there is no value to "
                "start a stream from",
                hint=f"start it from zeros or from a parameter, {LEAVE_OUT}",
            )
        yield label, value.clone()


def _leaves(call: Arguments) -> dict[KeyPath, Any]:
    return dict(tree_flatten_with_path((call.args, call.kwargs))[0])


def _same(made: Any, taken: Any) -> bool:
    """Whether two tensors are one, or the same view of one."""
    if not isinstance(made, Tensor) or not isinstance(taken, Tensor):
        return False
    places = [(part.data_ptr(), part.shape, part.stride()) for part in (made, taken)]
    return made is taken or (made.numel() > 0 and places[0] == places[1])


def _label(module: nn.Module, place: KeyPath) -> str:
    """`h` for the argument of that name, `states.0` for a part of one."""
    _kind, argument, *rest = place
    if isinstance(argument, MappingKey):
        name = str(argument.key)
    else:
        names = list(inspect.signature(module.forward).parameters)
        name = names[min(argument.idx, len(names) - 1)]  # type: ignore[attr-defined]
    return ".".join([name, *(str(part).strip("[].'") for part in rest)])
