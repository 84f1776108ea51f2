"""Finds arguments that a model takes, by calling it with what its signature and its layers suggest."""

from __future__ import annotations

import copy
import inspect
import re
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import TaskError, first_line
from compressor.starting.candidates import candidates
from compressor.starting.running import Trials, run
from compressor.task import open_axes
from compressor.task.axes import BATCH
from compressor.task.signature import Call, as_call
from compressor.task.unlabelled import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.progress import Progress

LENGTHS = (32, 16, 64, 8, 128, 512, 2048, 16384, 4, 1)
"""Lengths that are tried, one after the other."""
_TRIALS = 400
"""Calls of the model at each of them."""
_SIZES = (2, 3)
_WORD = re.compile(r"\blength\b")
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Arguments:
    """One call of a model, as text."""

    texts: Mapping[str, str]
    """Name of the argument -> Python text in `batch` and `length`; "" if the whole call is one text of the user's."""
    keywords: bool
    """Whether they are handed over by name."""
    length: int
    min_length: int
    max_length: int
    further: Mapping[str, int] = field(default_factory=dict)
    """Name of a further length that the texts use -> a typical one."""

    @property
    def text(self) -> str:
        """What `example` returns."""
        return call_text(self.texts, keywords=self.keywords)


def call_text(texts: Mapping[str, str], *, keywords: bool) -> str:
    """One argument as itself, several as a tuple, keyword arguments as a dictionary."""
    if keywords:
        return "{" + ", ".join(f'"{name}": {text}' for name, text in texts.items()) + "}"
    (*firsts, last) = texts.values()
    if not firsts and not last.startswith("("):
        return last
    return f"({', '.join(texts.values())}{',' if not firsts else ''})"


def find(model: nn.Module, progress: Progress, example: str | None = None) -> Arguments:
    """Arguments that the model takes at several batch sizes, and the range of lengths.

    Args:
        model: In evaluation mode.
        progress: Shows each trial.
        example: What the user gives as `example`, as text in `batch` and `length`; nothing is guessed then.

    Raises:
        TaskError: Nothing that was tried runs.
    """
    parameters = inspect.signature(model.forward).parameters
    trials = Trials(model)
    if example is not None:
        for length in LENGTHS:
            if _same_axes(trials, example, length) is not None:
                return _with_range(model, {"": example}, False, length)
        raise TaskError(
            f"the model does not run on `{example}`: {_reason(model, example)}", hint=trials.hint or "fix --example"
        )
    names = _wanted(model, parameters)
    if not names:
        raise _give_up(model, "its `forward` names no argument")
    by_name_only = any(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in names)
    keywords = by_name_only or names != list(parameters)[: len(names)]
    swapped = untrained = None  # what runs with samples along another axis, or in evaluation mode alone
    with progress.bar("looking for arguments that the model takes", None) as bar:
        for length in LENGTHS:
            for texts in _combinations(model, names):
                bar.advance()
                right = _same_axes(trials, call_text(texts, keywords=keywords), length)
                if right and _trains(model, call_text(texts, keywords=keywords), length):
                    return _with_range(model, texts, keywords, length)
                if right:
                    untrained = untrained or (texts, length)
                elif right is not None:
                    swapped = swapped or texts
            if swapped is not None and untrained is None:
                return _with_range(model, swapped, keywords, length)
    if untrained is not None:
        return _with_range(model, untrained[0], keywords, untrained[1])
    reason = f"nothing that was tried for {', '.join(f'`{name}`' for name in names)} runs"
    raise _give_up(model, f"{reason}; {trials.reason}" if trials.reason else reason, trials.hint)


def _wanted(model: nn.Module, parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Arguments that must be given; of Hugging Face's models, whose are all optional, the main ones."""
    names = [name for name, one in parameters.items() if one.default is one.empty and one.kind not in _OPEN]
    main = getattr(model, "main_input_name", None)
    if isinstance(main, str) and main in parameters:
        also = ("attention_mask",) if main.endswith("ids") else ()
        decoded = ("decoder_input_ids",) if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else ()
        return [name for name in parameters if name in (*names, main, *also, *decoded)]
    return names or [name for name, one in parameters.items() if one.kind not in _OPEN][:1]


def _combinations(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, str]]:
    choices = product(*(candidates(name, model) for name in names))
    return (dict(zip(names, texts, strict=True)) for texts in islice(choices, _TRIALS))


def made(text: str, batch: int, length: int, **further: int) -> Any:
    """The value of `example`'s text at one size, the same every time."""
    with seeded(0):
        names = {"torch": torch, "batch": batch, "length": length}
        return eval(compile(text, "<example>", "eval"), names | further)


def _same_axes(trials: Trials, text: str, length: int) -> bool | None:
    """None if the model does not run on it; otherwise whether its samples lie along the axis of `batch`."""
    try:
        first, second = (as_call(made(text, size, length)) for size in _SIZES)
        for call in (first, second):
            trials.run(call, text)
    except Exception:
        return None
    tensors, spec = pytree.tree_flatten((first.args, first.kwargs))
    others, _ = pytree.tree_flatten((second.args, second.kwargs))
    if not all(isinstance(part, Tensor) for part in tensors):
        return True

    def again(parts: Sequence[Tensor]) -> Any:
        args, kwargs = pytree.tree_unflatten(list(parts), spec)
        return run(trials.model, Call(*args, **kwargs))

    found = [{axis for axis, word in axes.items() if word == BATCH} for axes in open_axes.find(tensors, again)]
    return found == [
        {axis for axis, sizes in enumerate(zip(one.shape, other.shape, strict=True)) if sizes[0] != sizes[1]}
        for one, other in zip(tensors, others, strict=True)
    ]


def _trains(model: nn.Module, text: str, length: int) -> bool:
    """Whether the model runs in training mode too: some mask spans of their inputs there, which must be long enough."""
    try:
        run(copy.deepcopy(model).train(), as_call(made(text, _SIZES[0], length)))
    except Exception:
        return False
    return True


def _with_range(model: nn.Module, texts: Mapping[str, str], keywords: bool, length: int) -> Arguments:
    texts, further = _own_lengths(model, texts, keywords, length)
    text = call_text(texts, keywords=keywords)
    shortest, longest = length, length
    if "length" in text:
        shortest, longest = open_axes.lengths(length, lambda size: _runs(model, text, size, **further))
    return Arguments(texts, keywords, length, shortest, longest, further)


def _runs(model: nn.Module, text: str, length: int, **further: int) -> bool:
    try:
        run(model, as_call(made(text, _SIZES[0], length, **further)))
    except Exception:
        return False
    return True


def _own_lengths(
    model: nn.Module, texts: Mapping[str, str], keywords: bool, length: int
) -> tuple[dict[str, str], dict[str, int]]:
    """The texts with a further length for arguments whose length need not be that of the first, such as a target's.

    Such an argument, or several that go together as a target and its mask, may be longer and shorter than the rest.
    """
    found, further = dict(texts), dict[str, int]()
    others = [name for name, text in texts.items() if "length" in text][1:]
    for count in range(1, len(others) + 1):
        for names in combinations(others, count):
            taken = any(word in found[name] for word in further for name in names)
            if taken or all("mask" in name.lower() for name in names):  # a mask of nothing but ones may be ignored
                continue
            word = f"{names[0]}_length"
            changed = found | {name: _WORD.sub(word, found[name]) for name in names}
            text, size = call_text(changed, keywords=keywords), max(2, length // 2)
            if all(_runs(model, text, length, **{**further, word: other}) for other in (size, 2 * length)):
                found, further = changed, {**further, word: size}
    return found, further


def _reason(model: nn.Module, text: str) -> str:
    try:
        run(model, as_call(made(text, _SIZES[0], LENGTHS[0])))
    except Exception as error:
        return first_line(error)
    return "it does not run at another batch size"


def _give_up(model: nn.Module, reason: str, hint: str | None = None) -> TaskError:
    return TaskError(
        f"no arguments were found for `forward{inspect.signature(model.forward)}`: {reason}",
        hint=hint
        or 'say what it takes, in `batch` and `length`: --example "torch.randn(batch, length, 40)"; several as a '
        "tuple, keyword arguments as a dictionary",
    )
