"""The model as layers, original against compressed: parameters, bytes, multiply-accumulates, time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.render import format as form
from compressor.render.blocks import Details, Figures, Table, Text
from compressor.render.layers import rows, total
from compressor.render.plots import by_layer
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compressor.render.blocks import Block, Figure
    from compressor.render.layers import Row
    from compressor.report import LayerCost, Report


@dataclass(frozen=True)
class _Quantity:
    name: str
    described: str
    of: Callable[[LayerCost], float | None]
    text: Callable[[float], str]


_QUANTITIES: Final = (
    _Quantity(
        "parameters",
        "Of the model in PyTorch.",
        lambda cost: cost.parameters,
        lambda value: form.large_count(round(value)),
    ),
    _Quantity(
        "bytes",
        "Of the weights, as the file stores them; rest: the graph, and what no layer owns.",
        lambda cost: cost.bytes,
        lambda value: form.size(round(value)),
    ),
    _Quantity("MACs", "For one sample.", lambda cost: cost.macs, lambda value: form.large_count(round(value))),
    _Quantity(
        "time",
        "Of the nodes of one run; rest: nodes without weights, such as activations.",
        lambda cost: cost.milliseconds,
        form.profiled,
    ),
)


def table(report: Report) -> Table:
    """One row a layer, for each quantity that is known before and after."""
    layers = _rows(report)
    known = [quantity for quantity in _QUANTITIES if _known(layers, quantity)]
    header = ("layer", *(quantity.name for quantity in known))
    return Table(header, tuple((row.name, *(_change(row, quantity) for quantity in known)) for row in layers))


def figures(report: Report) -> Iterator[Figure]:
    """One a quantity that is known."""
    layers = _rows(report)
    for quantity in _QUANTITIES:
        if _known(layers, quantity):
            pairs = [(row.name, total(row.before, quantity.of), total(row.after, quantity.of)) for row in layers]
            title = f"{quantity.name[0].upper()}{quantity.name[1:]} by layer"
            yield by_layer.figure(title, quantity.described, pairs, quantity.text)


def _rows(report: Report) -> list[Row]:
    """Of the first export and its original."""
    if not report.compressed or not report.compressed[0].costs or not report.original_of(0).costs:
        return []
    return rows(report.original_of(0).costs, report.compressed[0].costs)


def _known(layers: Sequence[Row], quantity: _Quantity) -> bool:
    return any(total(side, quantity.of) for row in layers for side in (row.before, row.after))


def _change(row: Row, quantity: _Quantity) -> str:
    before, after = total(row.before, quantity.of), total(row.after, quantity.of)
    return form.arrow(*("none" if value is None else quantity.text(value) for value in (before, after)))


def _blocks(report: Report) -> Iterator[Block]:
    layers = table(report)
    if not layers.rows:
        return
    yield Figures(tuple(figures(report)))
    yield Text(_NOTE, muted=True)
    yield Details("The same as a table", (layers,))


_NOTE = (
    "Grey: original; green: compressed. A node of the file belongs to the layer whose weights it reads. Time is the "
    "median of some runs in ONNX Runtime's profiler, which slows the file down and counts whole microseconds a node: "
    "compare layers, not runs."
)

LAYERS: Section[Report] = Section("The model by layer", lambda report: tuple(_blocks(report)), views=DOCUMENTS)
