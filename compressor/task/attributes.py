"""What a task says of itself beside its functions: each attribute must be of its kind, or nothing else is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressor.errors import TaskError
from compressor.nn.attention.parts import AttentionParts
from compressor.nn.patterns import check_patterns
from compressor.task.batches import PARTS
from compressor.task.contract import Task


def check_attributes(task: Task, inputs: Any, outputs: Any) -> None:
    """Check the attributes of the user's task.

    Args:
        task: The user's.
        inputs: What it declares of tensors that go in.
        outputs: The same of those that come out.

    Raises:
        TaskError: One is not what it must be; the message names it.
    """
    name = type(task).__name__
    _check_words(task, name)
    _check_lengths(task, name)
    _check_axes(name, inputs, outputs)
    _check_batch_parts(task, name)
    _check_attention(task, name)


def declared_lengths(task: Task) -> tuple[int, int] | None:
    """`min_length` and `max_length`, if the user's task says that there are several.

    A longest length that is the typical one may be a model's only one.
    """
    is_said = task.min_length != Task.min_length or task.max_length not in (Task.max_length, task.length)
    return (task.min_length, task.max_length) if is_said and task.min_length < task.max_length else None


def _check_words(task: Task, name: str) -> None:
    if not isinstance(task.metric, str) or not task.metric:
        raise TaskError(f"`metric` of {name} must be text, not {task.metric!r}", hint='such as `metric = "accuracy"`')
    if not isinstance(task.higher_is_better, bool):
        raise TaskError(
            f"`higher_is_better` of {name} must be True or False, not {task.higher_is_better!r}",
            hint="False for a loss or an error rate",
        )
    if task.target is not None and not isinstance(task.target, str):
        raise TaskError(
            f"`target` of {name} must be a key of the batches, not {task.target!r}", hint='such as `target = "labels"`'
        )


def _check_lengths(task: Task, name: str) -> None:
    sizes = {word: getattr(task, word) for word in ("min_length", "length", "max_length")}
    for word, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool):
            raise TaskError(f"`{word}` of {name} must be a whole number, not {size!r}")
    if not 1 <= task.min_length <= task.length <= task.max_length:
        raise TaskError(
            f"{name} needs 1 <= min_length <= length <= max_length, not {', '.join(map(str, sizes.values()))}"
        )


def _check_axes(name: str, inputs: Any, outputs: Any) -> None:
    for what, axes in (("inputs", inputs), ("outputs", outputs)):
        if not _are_axes(axes):
            raise TaskError(
                f"`{what}` of {name} must map each tensor's name to {{axis: axis name}}",
                hint='such as {"features": {0: "batch", 1: "time"}}; left out, names and axes are found',
            )
    for both in set(inputs) & set(outputs):
        raise TaskError(
            f"{name} calls an input and an output `{both}`", hint="a file has one tensor of a name: use another for one"
        )


def _are_axes(axes: Any) -> bool:
    return isinstance(axes, Mapping) and all(
        isinstance(name, str)
        and isinstance(words, Mapping)
        and _is_name(name)
        and all(type(axis) is int and isinstance(word, str) and _is_name(word) for axis, word in words.items())
        for name, words in axes.items()
    )


def _is_name(text: str) -> bool:
    """Whether a file can call something so, and a person read it."""
    return bool(text.strip()) and text.isprintable()


def _check_batch_parts(task: Task, name: str) -> None:
    parts: Any = task.batch_parts
    if parts is None:
        return
    words = ", ".join(f"`{word}`" for word in PARTS)
    if isinstance(parts, str) or not isinstance(parts, Sequence):
        raise TaskError(f"`batch_parts` of {name} must be a tuple of {words}, not {parts!r}")
    for part in parts:
        if part not in PARTS:
            raise TaskError(f"`batch_parts` of {name} has the unknown word `{part}`", hint=f"use {words}")
    if "input" not in parts:
        raise TaskError(f"`batch_parts` of {name} names no `input`", hint="say which elements the model takes")


def _check_attention(task: Task, name: str) -> None:
    attention: Any = task.attention
    if not isinstance(attention, Mapping) or not all(
        isinstance(pattern, str) and isinstance(parts, AttentionParts) for pattern, parts in attention.items()
    ):
        raise TaskError(
            f"`attention` of {name} must map globs of module names to AttentionParts",
            hint='such as {"encoder.*.attention": AttentionParts(query="q", key="k", ...)}',
        )
    try:
        if attention:
            check_patterns(tuple(attention))
    except ValueError as error:
        raise TaskError(f"`attention` of {name}: {error}") from error
