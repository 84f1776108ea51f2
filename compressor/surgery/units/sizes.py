"""Sizes that the model's own code keeps as numbers, such as `hidden_size` of a cell in Python.

Which of a module's numbers is the size that shrinks cannot be read off its name: they are tried, and what makes the
smaller model agree with the original is taken. A record says what was set: `{"kind": "sizes", "sizes":
{"cell.hidden_size": 7}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.names import full_name
from compressor.nn.own_code import is_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from compressor.surgery.units.resize import Kept

KIND = "sizes"


@dataclass(frozen=True)
class Size:
    """A number of a module that becomes smaller."""

    module: str
    attribute: str
    before: int
    after: int

    @property
    def name(self) -> str:
        """Its full name."""
        return full_name(self.module, self.attribute)

    def set(self, model: nn.Module, value: int) -> None:
        """Give the module's attribute this value."""
        setattr(model.get_submodule(self.module), self.attribute, value)


def fit_sizes(smaller: nn.Module, kept: Kept, check: Callable[[], None]) -> tuple[Size, ...]:
    """Set the numbers of the model's own modules that have to shrink with its tensors, in place.

    Args:
        smaller: The model with its tensors cut.
        kept: What was cut.
        check: Raises a `SurgeryError` if `smaller` does not run, or does not agree.

    Returns:
        What was set; nothing if the model agrees as it is.

    Raises:
        SurgeryError: The model does not agree with any of the choices: the error with all sizes set.
    """
    sizes = tuple(_candidates(smaller, kept))
    errors = []
    for chosen in _choices(sizes):
        for size in sizes:
            size.set(smaller, size.after if size in chosen else size.before)
        try:
            check()
        except SurgeryError as error:
            errors.append(error)
        else:
            return tuple(chosen)
    for size in sizes:
        size.set(smaller, size.before)
    raise errors[min(1, len(errors) - 1)]


def _choices(sizes: Sequence[Size]) -> Iterator[Sequence[Size]]:
    """None, all of them, all but one, one alone: a number may be equal to a size by chance."""
    yield ()
    if sizes:
        yield sizes
    if len(sizes) > 1:
        for left_out in sizes:
            yield [size for size in sizes if size is not left_out]
    if len(sizes) > 2:
        for single in sizes:
            yield [single]


def _candidates(smaller: nn.Module, kept: Kept) -> Iterator[Size]:
    """The numbers of each module of the model's own code that equal the size of an axis that was cut inside of it."""
    for name, module in smaller.named_modules():
        if not is_own(module):
            continue
        prefix = f"{name}." if name else ""
        lengths: dict[int, set[int]] = {}
        for (parameter, _), mask in kept.items():
            if parameter.startswith(prefix):
                lengths.setdefault(mask.numel(), set()).add(int(mask.sum()))
        for attribute, value in vars(module).items():
            if type(value) is int and len(after := lengths.get(value, set())) == 1:
                yield Size(name, attribute, value, next(iter(after)))


def sizes_record(sizes: Sequence[Size]) -> dict[str, Any]:
    """The JSON record of what was set."""
    return {"kind": KIND, "sizes": {size.name: size.after for size in sizes}}


def apply_sizes_record(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Set the numbers that a record names; only whole numbers that a module of the model has are ever changed.

    Raises:
        CheckpointError: The model has no such number, or a smaller one.
    """
    sizes = record.get("sizes")
    modules = dict(model.named_modules())
    for name, value in sizes.items() if isinstance(sizes, dict) else [(str(sizes), None)]:
        owner, _, attribute = str(name).rpartition(".")
        old = vars(modules[owner]).get(attribute) if owner in modules else None
        if type(old) is not int or type(value) is not int or not 0 < value <= old:
            raise CheckpointError(
                f"the record sets `{name}` to {value!r}, which does not fit the model",
                hint="load it with the task that it was made from",
            )
        setattr(modules[owner], attribute, value)
