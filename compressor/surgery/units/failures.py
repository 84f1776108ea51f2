"""Which layers are at fault if a removal fails: they are left alone, the others go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from compressor.errors import SurgeryError
from compressor.nn.names import in_words
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

R = TypeVar("R")


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
    names: Sequence[str], required: Sequence[str], attempt: Callable[[Sequence[str]], R], *, what: str = "units"
) -> tuple[R, tuple[Skip, ...]]:
    """What `attempt` gives for the layers that do not fail, and the others with the reason.

    Args:
        names: The layers.
        required: Those of them whose failure is an error.
        attempt: Raises `FailedRemoval` if a layer among those that it is given is at fault.
        what: What errors call what is removed.

    Raises:
        FailedRemoval: A required layer or all of them fail; the message names one.
    """
    attempts = _Attempts(attempt)
    kept, failed = _compatible(list(names), attempts)
    for name, error in failed.items():
        if name in required or not kept:
            reason = f"{what} of {in_words(name)} cannot be removed: {error.message}"
            raise FailedRemoval(reason, hint=_hint(name, error))
    skipped = tuple(Skip(name=name, reason=error.message) for name, error in failed.items())
    try:
        return attempts.result(kept), skipped
    except SurgeryError as error:  # none of the others can go by itself
        if not failed:
            raise
        reasons = "; ".join(f"{in_words(skip.name)}: {skip.reason}" for skip in skipped)
        hint = next((one.hint for one in failed.values() if one.hint), error.hint)
        raise SurgeryError(f"{error.message}; those that could be tried failed ({reasons})", hint=hint) from error


class _Attempts(Generic[R]):
    """Tries layers out and keeps what the last ones that went well gave: an attempt traces, scores and compares."""

    def __init__(self, attempt: Callable[[Sequence[str]], R]) -> None:
        """See `without_failing`."""
        self._attempt = attempt
        self._last: tuple[list[str], R] | None = None

    def failure(self, names: list[str]) -> FailedRemoval | None:
        """What is wrong with these layers."""
        try:
            self._last = (list(names), self._attempt(names))
        except FailedRemoval as error:
            return error
        except SurgeryError:
            return None  # none of them can go by itself: that is no fault of theirs
        return None

    def result(self, names: list[str]) -> R:
        """What the attempt gives for these layers."""
        if self._last is not None and self._last[0] == names:
            return self._last[1]
        return self._attempt(names)


def _compatible(names: list[str], attempts: _Attempts[R]) -> tuple[list[str], dict[str, FailedRemoval]]:
    """The layers that do not fail together, and the others with what each said; found by halving."""
    error = attempts.failure(names)
    if error is None:
        return names, {}
    if len(names) == 1:
        return [], {names[0]: error}
    middle = len(names) // 2
    kept, failed = _compatible(names[:middle], attempts)
    more, failed_too = _compatible(names[middle:], attempts)
    failed |= failed_too
    if kept and more and attempts.failure(kept + more) is not None:
        for name in more:  # each half is right by itself: add one after the other
            error = attempts.failure([*kept, name])
            if error is None:
                kept.append(name)
            else:
                failed[name] = error
        return kept, failed
    return kept + more, failed


def leave_alone(module: str) -> str:
    """The remedy if a module cannot lose anything."""
    return f"name `{module}` under `ignore`" if module else "name other layers under `targets`"


def _hint(name: str, error: FailedRemoval) -> str:
    remedy = leave_alone(name)
    return f"{error.hint}; or {remedy}" if error.hint and "ignore" not in error.hint else remedy
