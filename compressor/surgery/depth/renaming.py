"""Where a module of the original model is after stacks were shortened, looped or put behind a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.surgery.depth.chains import KIND as CHAIN
from compressor.surgery.depth.loops import KIND as HALTING
from compressor.surgery.depth.mixing import KIND as LAYER_MIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def name_now(name: str, structure: Iterable[Mapping[str, Any]]) -> str | None:
    """The name that a module of the original has now; None if it, or what it stood for, is gone.

    A layer that was left out is found where the next one that is left reads: at the last place in front of that. Of
    layers in a loop the last one is the whole loop. Lists whose layers have names and no numbers keep them.

    Args:
        name: In the original model.
        structure: The records of the steps so far.
    """
    found: str | None = name
    for record in structure:
        move = _MOVES.get(str(record.get("kind")))
        module = record.get("module")
        if move is None or found is None or not found.startswith(f"{module}."):
            continue
        local, dot, inside = found.removeprefix(f"{module}.").partition(".")
        if local.isdecimal():
            moved = move(record, int(local), f"{dot}{inside}")
            found = None if moved is None else f"{module}.{moved}"
    return found


def _in_chain(record: Mapping[str, Any], place: int, inside: str) -> str | None:
    first, count, chain = record["first"], record["count"], record["chain"]
    number = place - first
    if not 0 <= number < count:
        return f"{place if number < 0 else place - count + len(chain)}{inside}"
    if number in chain:
        return f"{first + _last(chain, number)}{inside}"
    later = [at for at, own in enumerate(chain) if own > number]
    if inside:
        return None
    at = later[0] if later else len(chain)  # of what follows the stack the last place is in front
    return f"{first + at - 1}" if at else None


def _last(chain: Sequence[int], number: int) -> int:
    return max(at for at, own in enumerate(chain) if own == number)


def _in_loop(record: Mapping[str, Any], place: int, inside: str) -> str | None:
    shift = sum(1 for group in record["groups"] for other in group[1:] if other < place)
    for group in record["groups"]:
        if place in group:
            start = group[0] - sum(1 for other in record["groups"] for at in other[1:] if at < group[0])
            return str(start) if place == group[-1] and not inside else None
    return f"{place - shift}{inside}"


def _behind_map(record: Mapping[str, Any], place: int, inside: str) -> str | None:
    first, count = record["first"], record["count"]
    if place < first:
        return f"{place}{inside}"
    if place >= first + count:
        return f"{place - count + 1}{inside}"
    if place == first + count - 1 and not inside:
        return f"{first}"  # what leaves the stack leaves it behind the map
    return f"{first}.layers.{place - first}{inside}"


_MOVES: Mapping[str, Callable[[Mapping[str, Any], int, str], str | None]] = {
    CHAIN: _in_chain,
    HALTING: _in_loop,
    LAYER_MIX: _behind_map,
}
