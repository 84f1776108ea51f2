"""Patterns of `targets` and `ignore`: what they match, and a clear refusal if they match nothing."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from compressor.errors import MethodError
from compressor.nn.patterns import check_patterns, fits
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

Kind = Literal["i2h", "h2h", "other", "layer", "attention"]

SHOWN = 12
"""How many names an error lists at most."""


def _checked(pattern: str) -> str:
    check_patterns((pattern,))
    return pattern


Pattern = Annotated[str, AfterValidator(_checked)]
"""A glob, or `re:` and a regular expression, as an option."""
Patterns = tuple[Pattern, ...]


@dataclass(frozen=True)
class Candidate:
    """Something that a pattern may choose: a weight, or a recurrent layer."""

    name: str
    """As in `named_parameters` or `named_modules`: the first name of a shared one."""
    kind: Kind
    paths: tuple[str, ...]
    """All its names and those of the modules that hold it."""


@dataclass(frozen=True)
class Selection:
    """What was chosen, in the model's order, and what was looked at and left alone."""

    names: tuple[str, ...]
    skipped: tuple[Skip, ...]

    def named(self, patterns: Iterable[str] | None) -> list[str]:
        """Those whose exact name was asked for: that nothing can be done to one of them is an error, and no skip."""
        exact = set(patterns or ())
        return [name for name in self.names if name in exact]


def matches(pattern: str, candidate: Candidate) -> bool:
    """True if the glob (or, after `re:`, the regular expression) fits a whole name of the candidate."""
    return any(fits(pattern, path) for path in candidate.paths)


def select(
    candidates: Sequence[Candidate],
    targets: Sequence[str] | None,
    ignore: Sequence[str],
    *,
    matrices: str = "both",
    not_by_default: str = "not in a recurrent layer and not named in `targets`",
) -> Selection:
    """The candidates that `targets` names, or those that are chosen by default.

    Args:
        candidates: In the model's order.
        targets: Patterns; None chooses everything that is not of kind `other`.
        ignore: Patterns of what is left alone.
        matrices: `i2h`, `h2h` or `both`: which matrices of recurrent layers.
        not_by_default: Why one of kind `other` is left alone without `targets`.

    Raises:
        MethodError: Nothing is left.
    """
    reasons = {item.name: _reason(item, targets, ignore, matrices, not_by_default) for item in candidates}
    names = tuple(name for name, reason in reasons.items() if reason is None)
    skipped = tuple(Skip(name=name, reason=reason) for name, reason in reasons.items() if reason is not None)
    if not names:
        looked_at = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped[:SHOWN])
        raise MethodError(f"nothing is left to prune ({looked_at})", hint="change `targets`, `ignore` or `matrices`")
    return Selection(names, skipped)


def refuse_unmatched(
    patterns: Sequence[str],
    candidates: Sequence[Candidate],
    model: nn.Module,
    *,
    option: str = "targets",
    why: str = "cannot be pruned",
) -> None:
    """Every pattern has to match: one that does not is most likely a slip, and would prune less than was meant."""
    for pattern in patterns:
        if any(matches(pattern, item) for item in candidates):
            continue
        names = dict.fromkeys(path for item in candidates for path in item.paths)
        near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.5)
        wish = f"did you mean `{near[0]}`? " if near else ""
        raise MethodError(
            f"`{option}`: {_what_it_matches(pattern, model, why)}",
            hint=f"{wish}candidates: {listed(item.name for item in candidates)}",
        )


def _what_it_matches(pattern: str, model: nn.Module, why: str) -> str:
    names = [name for name, _ in [*model.named_parameters(), *model.named_modules()] if name]
    matched = [name for name in names if matches(pattern, Candidate(name, "other", (name,)))]
    if matched:
        return f"`{pattern}` matches only {listed(matched)}, which {why}"
    return f"`{pattern}` matches nothing in the model"


def listed(names: Iterable[str]) -> str:
    """The first names, quoted, and how many there are more."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in every[:SHOWN]) + more if every else "none"


def _reason(
    item: Candidate, targets: Sequence[str] | None, ignore: Sequence[str], matrices: str, not_by_default: str
) -> str | None:
    """Why a candidate is left alone; None if it is chosen."""
    if targets is None and item.kind == "other":
        return not_by_default
    if targets is not None and not any(matches(pattern, item) for pattern in targets):
        return "not named in `targets`"
    if any(matches(pattern, item) for pattern in ignore):
        return "named in `ignore`"
    if item.kind in ("i2h", "h2h") and matrices not in ("both", item.kind):
        return f"`matrices: {matrices}` leaves {item.kind} weights alone"
    return None
