"""A finite automaton as JSON, as DOT for graph tools, and as a stand-alone SVG file."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

from compressor.render.svg import ALONE, COMPRESSED, INK, MUTED, ORIGINAL, Drawing

if TYPE_CHECKING:
    from compressor.nn.automaton import Automaton

_RADIUS: Final = 185.0
_TOP: Final = 40.0
_DOT: Final = 12.0
_BEND: Final = 0.18
_PRINTABLE: Final = range(33, 127)
_MOST_SHOWN: Final = 8
"""Symbols of an edge, at most, that are named."""


def tables(automaton: Automaton) -> str:
    """JSON: classes of the symbols, the next states (S, K), the outputs (S, C); state 0 is the start."""
    states = len(automaton.outputs)
    table = automaton.step.next.view(states, -1)
    content = {
        "start": 0,
        "output_for": "each symbol" if automaton.each else "the whole string",
        "classes": automaton.step.classes.tolist(),
        "next": table.tolist(),
        "outputs": automaton.outputs.tolist(),
    }
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def dot(automaton: Automaton) -> str:
    """The states with what they decide, the start with a second ring; an edge for each pair of states."""
    lines = ["digraph automaton {", "  rankdir=LR;"]
    for state, decision in enumerate(decisions(automaton)):
        lines.append(f'  {state} [label="{state}: {decision}"{", peripheries=2" if state == 0 else ""}];')
    for (source, target), label in edges(automaton).items():
        escaped = label.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'  {source} -> {target} [label="{escaped}"];')
    return "\n".join([*lines, "}", ""])


def svg(automaton: Automaton, title: str) -> str:
    """States on a circle from the start at the top on, coloured by what they decide; symbols show on hover."""
    decided, count = decisions(automaton), len(automaton.outputs)
    drawing = Drawing(2 * _RADIUS + 2 * _TOP + 30, ALONE)
    drawing.text(8, 18, title, fill=INK)
    places = {state: _place(state, count) for state in range(count)}
    for (source, target), label in edges(automaton).items():
        if source != target:
            drawing.arc(places[source], places[target], MUTED, bend=_BEND, opacity=0.7)
            drawing.dot(*_arrow(places[source], places[target]), 2.5, MUTED, title=f"{source} to {target}: {label}")
    loops = {source: label for (source, target), label in edges(automaton).items() if source == target}
    for state, (x, y) in places.items():
        stays = f"; stays on {loops[state]}" if state in loops else ""
        colour = COMPRESSED if decided[state] else ORIGINAL
        drawing.dot(x, y, _DOT, colour, title=f"state {state} decides {decided[state]}{stays}")
        if state == 0:
            drawing.dot(x, y, _DOT + 3, INK, hollow=True)
        drawing.text(x, y + 4, str(state), anchor="middle", size=10, fill="#ffffff")
    return drawing.alone(f"{title}: {count} states, {len(edges(automaton))} edges; state 0 is the start.")


def decisions(automaton: Automaton) -> list[int]:
    """What each state decides: the place of its largest score, or whether its only one is above 0."""
    outputs = automaton.outputs
    decided = outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0).long()
    return [int(value) for value in decided]


def edges(automaton: Automaton) -> dict[tuple[int, int], str]:
    """(state, next state) -> the symbols that lead there."""
    table = automaton.step.next.view(len(automaton.outputs), -1).tolist()
    members: dict[int, list[int]] = {}
    for symbol, group in enumerate(automaton.step.classes.tolist()):
        members.setdefault(group, []).append(symbol)
    found: dict[tuple[int, int], list[int]] = {}
    for state, row in enumerate(table):
        for group, target in enumerate(row):
            found.setdefault((state, target), []).extend(members.get(group, []))
    are_codes = len(automaton.step.classes) in (128, 256)
    return {pair: _named(sorted(symbols), are_codes=are_codes) for pair, symbols in found.items()}


def _named(symbols: list[int], *, are_codes: bool) -> str:
    """The symbols, as characters if they are codes of characters."""
    names = [chr(symbol) if are_codes and symbol in _PRINTABLE else str(symbol) for symbol in symbols]
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return " ".join(names[:_MOST_SHOWN]) + more


def _place(state: int, count: int) -> tuple[float, float]:
    angle = 2 * math.pi * state / count - math.pi / 2
    return ALONE / 2 + _RADIUS * math.cos(angle), _TOP + _RADIUS + 10 + _RADIUS * math.sin(angle)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Near the end of an arc, where a dot stands for its head."""
    (x, y), (other_x, other_y) = start, end
    middle = (x + other_x) / 2 - _BEND * (other_y - y), (y + other_y) / 2 + _BEND * (other_x - x)
    distance = math.hypot(other_x - middle[0], other_y - middle[1]) or 1.0
    part = min((_DOT + 5) / distance, 0.5)
    return other_x + part * (middle[0] - other_x), other_y + part * (middle[1] - other_y)
