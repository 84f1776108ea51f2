"""A `LearnedQuery` over the next few positions: the author's attention code runs, and its output is replaced.

The sums that a `LearnedQuery` carries need the queries, keys and values that code of the author's computes around it.
So they are watched, and the sums are carried on when the output projection behind them is called.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.streaming.attention import batch_first
from compressor.streaming.layers import LEAVE_OUT, Arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from compressor.streaming.survey import Slot, Survey


@dataclass
class _Asked:
    """What was seen of one call of attention around a `LearnedQuery`, in its own order of axes."""

    slot: Slot | None = None
    states: list[Tensor] = field(default_factory=list)
    x: Tensor | None = None
    values: Tensor | None = None


@dataclass
class Queries:
    """By the name of a `LearnedQuery`, what of its attention has been seen since it was called."""

    seen: dict[str, _Asked] = field(default_factory=dict)

    def of(self, name: str) -> _Asked:
        """What has been seen so far."""
        return self.seen.setdefault(name, _Asked())

    def ask(self, name: str, module: LearnedQuery, call: Arguments, slot: Slot, states: list[Tensor]) -> None:
        """Remember a call of a `LearnedQuery` and the states that it starts from."""
        asked = self.of(name)
        asked.slot, asked.states = slot, states
        if "key" not in module.paths():
            asked.x = call.get(0, "x")
            asked.values = module.own_values(asked.x)

    def answer(self, name: str, model: nn.Module, context: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """What an output projection gets instead of what the author's code computed, and the new states by name.

        Raises:
            ExportError: Queries, keys or values have not been computed by then.
        """
        module, asked = model.get_submodule(name), self.seen.pop(name, _Asked())
        assert isinstance(module, LearnedQuery)
        if asked.slot is None or asked.x is None or asked.values is None:
            raise ExportError(
                f"the attention around `{name}` calls its output projection before queries, keys and values",
                hint=f"call each of them once for a sequence, {LEAVE_OUT}",
            )
        key = module.paths().get("key")
        x, values = (batch_first(module, part) for part in (asked.x, asked.values))
        a, c, m = asked.states
        answer, new = module.step(x, values, None if key is None else model.get_submodule(key), (a, c, m))
        states = {spec.name: value for spec, value in zip(asked.slot.specs, new, strict=True)}
        return batch_first(module, answer).reshape(context.shape), states


@contextmanager
def answered(model: nn.Module, survey: Survey, queries: Queries, states: dict[str, Tensor]) -> Iterator[None]:
    """Within the block, output projections behind a `LearnedQuery` get its answers; new states go into `states`."""
    changed: list[nn.Module] = []

    def change(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        module.forward = forward
        changed.append(module)

    def keys(asked: str, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        queries.of(asked).x = x
        return original(x)

    def values(asked: str, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        result = original(x)
        queries.of(asked).values = result
        return result

    def output(asked: str, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        answer, new = queries.answer(asked, model, x)
        states.update(new)
        return original(answer)

    roles = {"key": keys, "value": values, "output": output}
    try:
        for name in survey.carriers:
            module = model.get_submodule(name)
            if isinstance(module, LearnedQuery):
                for role, path in module.paths().items():
                    part = model.get_submodule(path)
                    change(part, partial(roles[role], name, part.forward))
        yield
    finally:
        for module in reversed(changed):
            del module.forward
