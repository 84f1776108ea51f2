"""The order of a recurrent layer's units as a Hasse diagram: a stand-alone SVG file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.svg import ALONE, COMPRESSED, GRID, INK, ORIGINAL, Drawing, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.lattice.order import Order
    from compressor.surgery.units.order import Reading

_MOST_NAMED: Final = 48
"""Classes in a diagram, at most, that show the number of their first unit."""
_SWEEPS: Final = 6
_COLUMNS: Final = 32
"""Of the block of units that are comparable to no other."""
_LINE: Final = 16
_LEVEL: Final = 62
"""Distance of two heights."""
_DOT: Final = 16


def svg(readings: Sequence[Reading]) -> str:
    """One diagram for each order: a class of units above those that drive only what it drives too.

    Filled: kept by the order (meet-irreducible); hollow: redundant. The larger a dot, the more units are in its class.
    Units that are comparable to no other stand in a block below.

    Args:
        readings: Of binary orders.
    """
    orders = [reading.order for reading in readings if reading.order is not None]
    heights = [_height(order, reading) for order, reading in zip(orders, readings, strict=True)]
    drawing, top = Drawing(sum(heights), ALONE), 0.0
    for order, reading, height in zip(orders, readings, heights, strict=True):
        _diagram(drawing, order, reading, top)
        top += height
    return drawing.alone(" ".join(f"{reading.facts}." for reading in readings))


def places(order: Order) -> tuple[dict[int, tuple[float, float]], list[int]]:
    """Position of each comparable class, by its height and close to its covers, and the classes comparable to none."""
    edges = order.covers.unpack().nonzero().tolist()
    neighbours: dict[int, list[int]] = {}
    for low, high in edges:
        neighbours.setdefault(low, []).append(high)
        neighbours.setdefault(high, []).append(low)
    levels: dict[int, list[int]] = {}
    for item, height in enumerate(order.heights.tolist()):
        if item in neighbours:
            levels.setdefault(height, []).append(item)
    across = {item: index / len(items) for items in levels.values() for index, item in enumerate(items)}
    for sweep in range(_SWEEPS):
        # Each level in the order of its neighbours' mean place, upwards and downwards in turn: fewer crossings.
        for height in sorted(levels, reverse=bool(sweep % 2)):
            items = levels[height]
            items.sort(
                key=lambda item: (sum(across[other] for other in neighbours[item]) / len(neighbours[item]), item)
            )
            across |= {item: (index + 0.5) / len(items) for index, item in enumerate(items)}
    positions = {item: (across[item], float(height)) for height, items in levels.items() for item in items}
    return positions, [item for item in range(order.count) if item not in neighbours]


def _height(order: Order, reading: Reading) -> float:
    """Of one diagram: lines of text, levels, and the block of those that are comparable to no other."""
    return _LINE * (len(reading.facts.split("; ")) + 1) + _LEVEL * (int(order.heights.max()) + 1) + _below(order)


def _below(order: Order) -> float:
    """Height of the block."""
    rows = -(-len(places(order)[1]) // _COLUMNS)
    return 2 * _LINE + _DOT * rows if rows else 0


def _diagram(drawing: Drawing, order: Order, reading: Reading, top: float) -> None:
    for line, text in enumerate(reading.facts.split("; ")):
        drawing.text(8, top + _LINE * (line + 1), text, size=11, fill=INK)
    end = top + _height(order, reading) - _below(order)
    comparable, lonely = places(order)
    across = Scale(0, 1, 16, drawing.width - 16)
    positions = {item: (across(x), end - _LEVEL * (y + 0.5)) for item, (x, y) in comparable.items()}
    for low, high in order.covers.unpack().nonzero().tolist():
        drawing.line([positions[low], positions[high]], GRID)
    if lonely:
        drawing.text(8, end + _LINE, f"comparable to no other: {len(lonely)}", size=11, fill=INK)
    for index, item in enumerate(lonely):
        row, column = divmod(index, _COLUMNS)
        positions[item] = across((column + 0.5) / _COLUMNS), end + 1.5 * _LINE + _DOT * (row + 0.5)
    _dots(drawing, order, positions, named=set(comparable) if len(comparable) <= _MOST_NAMED else set())


def _dots(drawing: Drawing, order: Order, positions: Mapping[int, tuple[float, float]], *, named: set[int]) -> None:
    sizes, kept = order.classes.bincount().tolist(), order.irreducible.tolist()
    first = {label: unit for unit, label in reversed(list(enumerate(order.classes.tolist())))}
    for item, (x, y) in positions.items():
        more = f" +{sizes[item] - 1}" if sizes[item] > 1 else ""
        colour, radius = COMPRESSED if kept[item] else ORIGINAL, min(9.0, 2 + 0.8 * sizes[item] ** 0.5)
        title = f"unit {first[item]}{more}, {'kept by the order' if kept[item] else 'redundant'}"
        drawing.dot(x, y, radius, colour, title=title, hollow=not kept[item])
        if item in named:
            drawing.text(x + radius + 1, y - 3, f"{first[item]}{more}", size=9, fill=INK)
