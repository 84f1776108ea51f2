"""Which axes of the model's inputs and outputs are open, and how that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render.blocks import Table, Text
from compressor.render.section import DOCUMENTS, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.render.blocks import Block
    from compressor.report import OpenAxes, Report, TensorAxes


def table(found: OpenAxes) -> Table:
    """One row a tensor."""
    rows = tuple(
        (
            f"{tensor.module}.{tensor.name}" if tensor.module else tensor.name,
            "input" if tensor.enters else "output",
            ", ".join(f"{axis}: {word}" for axis, word in tensor.axes.items()) or "none",
            "declared and checked" if tensor.declared else "found",
        )
        for tensor in found.tensors
    )
    return Table(("tensor", "", "open axes", "how"), rows)


def sentence(found: OpenAxes) -> str:
    """At which sizes the model was called."""
    sizes = ", ".join(f"{word} {first} and {second}" for word, (first, second) in found.sizes.items())
    named = any(_has_own_name(tensor, found) for tensor in found.tensors)
    own = " An axis with a name of its own follows several sizes, or another size than that." if named else ""
    return f"The model was called at {sizes}: an axis whose size changed is open.{own}"


def _has_own_name(tensor: TensorAxes, found: OpenAxes) -> bool:
    return not tensor.declared and not set(tensor.axes.values()) <= set(found.sizes)


def _section(report: Report) -> Sequence[Block]:
    if report.axes is None:
        return ()
    return table(report.axes), Text(sentence(report.axes), muted=True)


AXES: Section[Report] = Section("Open axes", _section, views=DOCUMENTS, folded=True)
