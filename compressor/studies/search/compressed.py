"""Models after the steps of a recipe, kept from trial to trial.

Points that differ in what their weights are stored in have the same model, and points that differ in their retraining
the same model before it. A kept model goes on exactly as one that is made again: the states of the random generators
are kept with it, and what exporters learn of a model (its graph, whose agreement with PyTorch was checked, and its
second-order statistics) is kept for the next file of it.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from compressor.methods import METHODS
from compressor.methods.placing import carried_out
from compressor.task.narrowed_states import NarrowedStates
from compressor.task.random_state import random_state, set_random_state
from compressor.task.submodule_tasks import tasks_of_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from compressor.methods.base import Context, State
    from compressor.task.contract import Task
    from compressor.task.guard import GuardedTask

_MOST: Final = 512 * 2**20
"""Bytes after which the models that were not used for longest are forgotten."""
_COPIES: Final = 9
"""Of its weights that a kept model and what exporters keep of it take: 8.5 for a GRU after files in all precisions."""


@dataclass
class Compressed:
    """A model after some steps."""

    task: GuardedTask
    state: State
    generator: Tensor
    """State of the recipe's generator after the steps."""
    random: tuple[dict[str, Tensor], Any]
    """State of all other generators then."""
    shared: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    """What exporters keep of this model."""

    @cached_property
    def parts(self) -> list[tuple[str, nn.Module, Task]]:
        """What becomes a file: the model on the CPU, or each of its modules."""
        task = NarrowedStates(self.task, self.state.structure)
        return tasks_of_files(task, copy.deepcopy(self.state.model).cpu().eval(), self.task.submodules)

    @property
    def bytes(self) -> int:
        """What keeping it takes, about."""
        weights: int = sum(item.nbytes for item in self.state.model.state_dict().values())
        return _COPIES * weights


@dataclass
class Models:
    """Models of one task by the steps that made them, those of the last trials."""

    task: GuardedTask
    most: int = _MOST
    _kept: OrderedDict[str, Compressed] = field(default_factory=OrderedDict)

    def after(self, steps: Sequence[Mapping[str, Any]], context: Context, start: Callable[[], State]) -> Compressed:
        """The model after `steps`, from the longest beginning of them that is known.

        Args:
            steps: Of a recipe.
            context: Of this recipe, from its seed on; its generator is where the steps leave it afterwards, and so are
                the generators of torch, Python and NumPy.
            start: Gives the model before the first step.

        Raises:
            MethodError: A step cannot be carried out.
        """
        known, model = self._longest(steps)
        if model is None:
            model = self._keep([], start(), context)
        else:
            context.generator.set_state(model.generator)
            set_random_state(*model.random, context.device)
        for count in range(known, len(steps)):
            step = METHODS[steps[count]["method"]].model_validate(steps[count])
            state = carried_out(step, model.state, context).state
            model = self._keep(steps[: count + 1], state, context)
        return model

    def _longest(self, steps: Sequence[Mapping[str, Any]]) -> tuple[int, Compressed | None]:
        for count in range(len(steps), -1, -1):
            key = _key(steps[:count])
            if key in self._kept:
                self._kept.move_to_end(key)
                return count, self._kept[key]
        return 0, None

    def _keep(self, steps: Sequence[Mapping[str, Any]], state: State, context: Context) -> Compressed:
        """Keep a model as the last one, and forget the first ones if all of them are too large."""
        model = Compressed(self.task, state, context.generator.get_state(), random_state(context.device))
        self._kept[_key(steps)] = model
        while len(self._kept) > 1 and sum(one.bytes for one in self._kept.values()) > self.most:
            self._kept.popitem(last=False)
        return model


def _key(steps: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(steps), sort_keys=True)
