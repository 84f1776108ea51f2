"""Which earlier step replaced layers, for errors of steps that would have worked before it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compressor.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from compressor.methods.base import Method
    from compressor.task.contract import Task

_SHOWN = 3
_TIE = "tie_layers"


def replaced_layers(model: nn.Module) -> dict[str, list[str]]:
    """Recipe word of a method -> the layers of the model with which it replaced others."""
    from compressor.nn.attention.aaren import AarenAttention
    from compressor.nn.attention.learned_query import LearnedQuery
    from compressor.nn.attention.pooling import PoolingReplacement
    from compressor.nn.automaton import Automaton
    from compressor.nn.converted.recurrent import ConvertedRecurrent
    from compressor.nn.factored_linear import LowRankLinear
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.stack import RecurrentStack

    makers: dict[str, tuple[type[nn.Module], ...]] = {
        "aaren": (AarenAttention, LearnedQuery),
        "automaton": (Automaton,),
        "convert": (ConvertedRecurrent,),
        "lama": (PoolingReplacement,),
        "low_rank_attention": (LowRankLinear, LowRankRecurrent),
        "random_graph": (RecurrentStack,),
    }
    replaced: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        for word, kinds in makers.items():
            inside = any(name.startswith(f"{other}.") for others in replaced.values() for other in others)
            if isinstance(module, kinds) and not inside:
                replaced.setdefault(word, []).append(name or "(model)")
    return replaced


def order_hint(model: nn.Module, method: str) -> str | None:
    """What to do about a step that finds nothing any more because of earlier ones; None if none replaced a layer."""
    parts = []
    for word, names in replaced_layers(model).items():
        listed = ", ".join(f"`{name}`" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        if word == method:
            parts.append(f"an earlier `{word}` replaced {listed} already: take one of the two steps out")
        else:
            parts.append(f"`{word}` replaced {listed} before this step: {_in_front(method, word)}")
    return "; ".join(parts) or None


def _in_front(method: str, other: str) -> str:
    return f"put `{method}` in front of `{other}`"


def refuse_order(steps: Sequence[Method], model: nn.Module, task: Task) -> None:
    """Refuse, before any work, a step that finds nothing any more since an earlier one replaces what it looks for.

    Args:
        steps: Each of them alone has passed its `check_task`.
        model: The model before the first step; left as it is.
        task: The task.

    Raises:
        MethodError: The message names both steps, the hint the order that works.
    """
    _refuse_after_the_last(steps)
    _refuse_after_tying(steps)
    for index, later in enumerate(steps):
        if not later.looks_for:
            continue
        gone: dict[str, int] = {}
        for number, earlier in enumerate(steps[:index]):
            gone |= {
                name: number for name, kind in earlier.replaces(model, task).items() if name and kind in later.looks_for
            }
        if not gone:
            continue
        try:
            with _hidden(model, list(gone)):
                later.check_task(model, task)
        except MethodError as error:
            number = max(gone.values())
            word, names = steps[number].method, [name for name, step in gone.items() if step == number]
            listed = ", ".join(f"`{name}`" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            reason = f"`steps.{number}` ({word}) replaces {listed} before it, and then {error.message}"
            remedy = "take one of the two steps out" if word == later.method else _in_front(later.method, word)
            raise MethodError(f"`steps.{index}` ({later.method}): {reason}", hint=remedy) from error


def _refuse_after_the_last(steps: Sequence[Method]) -> None:
    """Behind a step that leaves no layers nothing is left to do."""
    for number, step in enumerate(steps[:-1]):
        if step.is_last:
            later = steps[number + 1]
            raise MethodError(
                f"`steps.{number + 1}` ({later.method}): `steps.{number}` ({step.method}) replaces the whole model "
                "before it",
                hint="take one of the two steps out"
                if later.method == step.method
                else _in_front(later.method, step.method),
            )


def _refuse_after_tying(steps: Sequence[Method]) -> None:
    """Layers that share weights change together or not at all, so what changes them one by one comes first."""
    words = [step.method for step in steps]
    if _TIE not in words:
        return
    first = words.index(_TIE)
    for number, step in enumerate(steps[first + 1 :], start=first + 1):
        if step.restructures:
            raise MethodError(
                f"`steps.{number}` ({step.method}): `steps.{first}` ({_TIE}) lets layers share weights before it, "
                "and it changes layers one by one",
                hint=_in_front(step.method, _TIE),
            )


@contextmanager
def _hidden(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Within the block, layers of the model are called as before, but are none of its modules."""
    saved = []
    for name in names:
        path, _, local = name.rpartition(".")
        parent = model.get_submodule(path)
        saved.append((parent, local, parent._modules[local]))
        parent._modules[local] = _hiding(parent._modules[local])
    try:
        yield
    finally:
        for parent, local, layer in reversed(saved):
            parent._modules[local] = layer


def _hiding(layer: Any) -> nn.Module:
    from torch import nn

    class Hiding(nn.Module):
        """Hands on calls and attributes."""

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            """The layer's result."""
            return layer(*args, **kwargs)

        def __getattr__(self, name: str) -> Any:
            return getattr(layer, name)

    return Hiding().train(layer.training)
