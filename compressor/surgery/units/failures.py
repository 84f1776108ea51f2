"""Which layers are at fault if a removal fails: they are left alone, the others go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from compressor.errors import SurgeryError
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

R = TypeVar("R")
_SHOWN = 6


class FailedRemoval(SurgeryError):
    """What was chosen cannot be carried out, or the smaller model is not right."""


@contextmanager
def failing() -> Iterator[None]:
    """Errors of the surgery within the block are failures of what was chosen."""
    try:
        yield
    except FailedRemoval:
        raise
    except SurgeryError as error:
        raise FailedRemoval(error.message, hint=error.hint) from error


def without_failing(
    names: Sequence[str], required: Sequence[str], attempt: Callable[[Sequence[str]], R]
) -> tuple[R, tuple[Skip, ...]]:
    """What `attempt` gives for the layers that do not fail, and the others with the reason.

    Args:
        names: The layers.
        required: Those of them whose failure is an error.
        attempt: Raises `FailedRemoval` if a layer among those that it is given is at fault.

    Raises:
        FailedRemoval: A required layer or all of them fail, or only several together; the message names them.
    """
    try:
        return attempt(names), ()
    except FailedRemoval as error:
        reasons = dict(_at_fault(names, error, attempt))
        for name, reason in reasons.items():
            if name in required or len(reasons) == len(names):
                raise FailedRemoval(
                    f"units of `{name}` cannot be removed: {reason.message}", hint=_hint(name, reason)
                ) from error
        if not reasons:
            listed = ", ".join(f"`{name}`" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise FailedRemoval(f"units of {listed} cannot go together: {error.message}", hint=error.hint) from error
    skipped = tuple(Skip(name=name, reason=reason.message) for name, reason in reasons.items())
    return attempt([name for name in names if name not in reasons]), skipped


def _at_fault(
    names: Sequence[str], error: FailedRemoval, attempt: Callable[[Sequence[str]], object]
) -> Iterator[tuple[str, FailedRemoval]]:
    """Of layers that fail together with this error those that fail by themselves, found by halving."""
    if len(names) == 1:
        yield names[0], error
        return
    middle = len(names) // 2
    for half in (names[:middle], names[middle:]):
        try:
            attempt(half)
        except FailedRemoval as other:
            yield from _at_fault(half, other, attempt)
        except SurgeryError:
            continue  # none of them can go by itself: that is no fault of theirs


def _hint(name: str, error: FailedRemoval) -> str:
    remedy = f"name `{name}` under `ignore`"
    return f"{error.hint}; or {remedy}" if error.hint and "ignore" not in error.hint else remedy
