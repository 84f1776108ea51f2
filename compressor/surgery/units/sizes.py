"""Sizes that the model's own code keeps as numbers, such as `hidden_size` of a cell in Python.

Which of a module's numbers is the size that shrinks cannot be read off its name: they are tried, and what makes the
smaller model agree with the original is taken. A record says what was set: `{"kind": "sizes", "sizes":
{"cell.hidden_size": 7}}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import TYPE_CHECKING, Any, Literal, get_args

from compressor.errors import SurgeryError
from compressor.nn.names import full_name
from compressor.nn.own_code import is_own
from compressor.nn.record import of_another_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from compressor.surgery.units.resize import Kept

KIND = "sizes"
Meaning = Literal["axis", "block", "count"]
"""What a number may be: the size of an axis, of each of its equal blocks (gates), or how many blocks (heads) it has."""
_MEANINGS: tuple[Meaning, ...] = get_args(Meaning)
_MOST_CHOICES = 64


@dataclass(frozen=True)
class Size:
    """A number of a module that becomes smaller."""

    module: str
    attribute: str
    before: int
    after: int
    meaning: Meaning = "axis"
    kind: str = ""
    """The module's class: what a number means is the same in all modules of one."""

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
    for chosen in islice(_choices(sizes), _MOST_CHOICES):
        for size in sizes:
            size.set(smaller, size.before)
        for size in chosen:
            size.set(smaller, size.after)
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
    """None, then as many as possible, then fewer: a number may be equal to a size by chance.

    All modules of a class decide alike.
    """
    yield ()
    options: dict[tuple[str, str], list[Meaning]] = {}
    for size in sizes:
        options.setdefault((size.kind, size.attribute), []).append(size.meaning)
    meanings = [[each for each in _MEANINGS if each in found] for found in options.values()]
    for left_out in range(len(options)):
        for kept in combinations(range(len(options)), len(options) - left_out):
            for taken in product(*(meanings[place] for place in kept)):
                names = [list(options)[place] for place in kept]
                wanted = dict(zip(names, taken, strict=True))
                yield [size for size in sizes if wanted.get((size.kind, size.attribute)) == size.meaning]


def _candidates(smaller: nn.Module, kept: Kept) -> Iterator[Size]:
    """The numbers of each module of the model's own code that say something of an axis that was cut inside of it."""
    for name, module in smaller.named_modules():
        numbers = {attribute: value for attribute, value in vars(module).items() if type(value) is int and value > 0}
        if not numbers or not is_own(module):
            continue
        prefix = f"{name}." if name else ""
        masks = {mask.numpy().tobytes(): mask for (parameter, _), mask in kept.items() if parameter.startswith(prefix)}
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        for attribute, value in numbers.items():
            for meaning in _MEANINGS:
                after = {found for mask in masks.values() if (found := _left(mask, value, meaning)) is not None}
                if len(after) == 1 and (left := after.pop()) < value:
                    yield Size(name, attribute, value, left, meaning, kind)


def _left(mask: Tensor, value: int, meaning: Meaning) -> int | None:
    """What a number with this meaning becomes; None if it says nothing of the axis."""
    size = mask.numel()
    if meaning == "axis":
        return int(mask.sum()) if size == value else None
    if size % value or value in (1, size):
        return None
    blocks = mask.view(-1, value) if meaning == "block" else mask.view(value, -1)
    counts = blocks.sum(1)
    if meaning == "block":
        return int(counts[0]) if bool((counts == counts[0]).all()) and int(counts[0]) else None
    whole = (counts == 0) | (counts == blocks.size(1))
    return int((counts != 0).sum()) if bool(whole.all()) else None


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
            raise of_another_task(f"the record sets `{name}` to {value!r}, which does not fit the model")
        setattr(modules[owner], attribute, value)
