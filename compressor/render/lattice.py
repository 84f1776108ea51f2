"""The order of a recurrent layer's units as a Hasse diagram: a stand-alone SVG file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.render.svg import COMPRESSED, GRID, INK, ORIGINAL, alone, draw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from compressor.nn.lattice.order import Order
    from compressor.surgery.units.order import Reading

_MOST_NAMED: Final = 48
"""Classes in a diagram, at most, that show the number of their first unit."""
_SWEEPS: Final = 6
_COLUMNS: Final = 32
"""Of the block of units that are comparable to no other."""


def svg(readings: Sequence[Reading]) -> str:
    """One diagram for each order: a class of units above those that drive only what it drives too.

    Filled: kept by the order (meet-irreducible); hollow: redundant. The larger a dot, the more units are in its class.
    Units that are comparable to no other stand in a block below.

    Args:
        readings: Of binary orders.
    """
    orders = [reading.order for reading in readings if reading.order is not None]
    heights = [_inches(order) for order in orders]

    def fill(figure: Figure) -> None:
        panels = figure.subplots(len(orders), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, order, reading in zip(panels[:, 0], orders, readings, strict=True):
            _diagram(axes, order, reading)

    return alone(draw(sum(heights) + 0.2, fill), " ".join(f"{reading.facts}." for reading in readings))


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


def _inches(order: Order) -> float:
    _, lonely = places(order)
    return 1.6 + 0.75 * int(order.heights.max()) + 0.17 * -(-len(lonely) // _COLUMNS)


def _diagram(axes: Axes, order: Order, reading: Reading) -> None:
    positions, lonely = places(order)
    rows = {item: (index % _COLUMNS, index // _COLUMNS) for index, item in enumerate(lonely)}
    block = {item: ((x + 0.5) / _COLUMNS, -0.55 - 0.24 * y) for item, (x, y) in rows.items()}
    for low, high in order.covers.unpack().nonzero().tolist():
        (x, y), (above_x, above_y) = positions[low], positions[high]
        axes.plot([x, above_x], [y, above_y], color=GRID, linewidth=0.6, zorder=1)
    sizes = order.classes.bincount().tolist()
    kept = order.irreducible.tolist()
    first = {label: unit for unit, label in reversed(list(enumerate(order.classes.tolist())))}
    for item, (x, y) in (positions | block).items():
        colour = COMPRESSED if kept[item] else ORIGINAL
        face = colour if kept[item] else "none"
        axes.plot(
            [x],
            [y],
            "o",
            color=colour,
            markerfacecolor=face,
            markersize=min(14.0, 2.5 + 1.2 * sizes[item] ** 0.5),
            zorder=2,
        )
        if len(positions) <= _MOST_NAMED and item in positions:
            more = f" +{sizes[item] - 1}" if sizes[item] > 1 else ""
            axes.annotate(
                f"{first[item]}{more}", (x, y), (4, 3), textcoords="offset points", fontsize=6.5, color=INK, zorder=3
            )
    if lonely:
        axes.annotate(
            f"comparable to no other: {len(lonely)}", (0, -0.3), fontsize=7.5, color=INK, annotation_clip=False
        )
    axes.set_title(reading.facts.replace("; ", "\n"), fontsize=8, parse_math=False)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(min(y for _, y in (positions | block).values()) - 0.3, int(order.heights.max()) + 0.3)
    axes.set_axis_off()
