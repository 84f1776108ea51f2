"""A graph as statements of C: memory is planned, and each node is written by the function of its operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
from exporters.c_code.fusion import Fused, fused_products, last_uses
from exporters.c_code.graph import HINT, Arena, Place, constant, kind_of, shape_of, strides_of, where
from exporters.c_code.loops import loops

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.c_code.graph import Kind
    from exporters.c_code.loops import Steps
    from exporters.c_code.rounding import Rounding


@dataclass(frozen=True)
class Constant:
    """An array in read-only memory."""

    name: str
    type: str
    array: NDArray[Any]
    comment: str


class Program:
    """The statements of one graph."""

    def __init__(
        self,
        graph: ir.Graph,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        writers: Mapping[str, Callable[[Program, ir.Node], None]],
        *,
        rounding: Rounding | None = None,
    ) -> None:
        """Write all nodes.

        Args:
            graph: With known sizes.
            inputs: Name of an input -> the C expression of where it lies.
            outputs: The same of outputs that may be written at once; the others lie in the work area.
            writers: Operator -> what writes a node.
            rounding: Of the weights of products; None leaves them float.

        Raises:
            ExportError: An operator or a size is not supported in C.
        """
        self.lines: list[str] = []
        self.constants: dict[str, Constant] = {}
        self._stored: dict[tuple[str, bytes], str] = {}
        self.rounding = rounding
        self.whole, self.whole_type = 0, ""
        """Elements of the work area `q`, and their type."""
        self.blocks = 0
        """Elements of the work area `z`."""
        self.operators: dict[str, int] = {}
        self._outputs = outputs
        self._places: dict[ir.Value, Place] = {}
        self._held: dict[ir.Value, ir.Value] = {}  # value -> the one whose memory it shares
        self._starts: dict[ir.Value, tuple[Kind, int]] = {}
        self._arenas: dict[Kind, Arena] = {"float": Arena(), "int32_t": Arena()}
        self._scratch: list[int] = []
        for value in graph.inputs:
            title = f"input `{value.name}`"
            self._places[value] = Place(inputs[value.name or ""], shape_of(value, title), kind_of(value, title))
        self._fused = fused_products(graph)
        written = {add: product for product, fused in self._fused.items() for add in fused.nodes}
        self._last = last_uses(graph, written)
        for self._now, node in enumerate(graph):
            if node in written:  # with the product before it
                continue
            write = writers.get(node.op_type if node.domain in ("", "ai.onnx") else "")
            if write is None:
                raise ExportError(f"{where(node)} is not supported in C", hint=HINT)
            self.operators[node.op_type] = self.operators.get(node.op_type, 0) + 1
            self.lines.append(f"/* {safe(where(node))} */")
            write(self, node)
            self._free()
        self.results = {value.name or "": self.place(value) for value in graph.outputs}

    @property
    def floats(self) -> int:
        """Elements of the work area `w`."""
        return self._arenas["float"].size

    @property
    def integers(self) -> int:
        """Elements of the work area `v`."""
        return self._arenas["int32_t"].size

    def place(self, value: ir.Value | None) -> Place:
        """Where a value lies; a constant is put into read-only memory on first use."""
        assert value is not None
        if value not in self._places:
            array = constant(value)
            assert array is not None, value.name
            self._places[value] = self.store(array, value.name or "constant")
        return self._places[value]

    def array(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The elements of a constant; None if the value is computed or left out."""
        return None if value is None else constant(value)

    def store(self, array: NDArray[Any], comment: str) -> Place:
        """A constant for any array of float32, int32, int8 or uint8."""
        types = {"float32": "float", "int32": "int32_t", "int8": "int8_t", "uint8": "uint8_t"}
        kind = types.get(str(array.dtype))
        if kind is None:
            raise ExportError(f"the constant `{comment}` is of {array.dtype}, which is not supported in C", hint=HINT)
        key = kind, array.tobytes()
        name = self._stored.setdefault(key, f"c{len(self.constants)}")
        if name not in self.constants:  # layers that share weights share the array too
            self.constants[name] = Constant(name, kind, np.ascontiguousarray(array), safe(comment))
        return Place(name, array.shape, "int32_t" if kind == "int32_t" else "float", array=array)

    def with_additions(self, node: ir.Node, source: ir.Value | None) -> tuple[Place, str, str]:
        """Where the result of a product of `source` goes, the bias, and the value that is added: pointers, or NULL."""
        fused = self._fused.get(node) or Fused(node.outputs[0])
        bias = "NULL" if fused.bias is None else self.store(fused.bias, f"bias of {node.name}").pointer
        added = "NULL" if fused.added is None else self.place(fused.added).pointer
        apart = fused.added is not None and source is not None and self._root(fused.added) is not self._root(source)
        return self.result(fused.result, node, over=[fused.added] if apart else []), bias, added

    def result(self, value: ir.Value, node: ir.Node, *, over: Sequence[ir.Value | None] = ()) -> Place:
        """Where the result of a node goes.

        Args:
            value: The result.
            node: Its node.
            over: Inputs of which each element is read before, and never after, that of the result is written: their
                memory is used again if nothing else needs it.
        """
        shape, kind = shape_of(value, where(node)), kind_of(value, where(node))
        direct = self._outputs.get(value.name or "") if value.is_graph_output() else None
        root = next(
            (self._root(other) for other in over if other is not None and self._may_go(other, shape, kind)), None
        )
        if direct is not None:
            place = Place(direct, shape, kind)
        elif root is not None:
            self._starts[value] = self._starts.pop(root)
            place = Place("w" if kind == "float" else "v", shape, kind, self._starts[value][1])
        else:
            start = self._arenas[kind].take(math.prod(shape))
            self._starts[value] = kind, start
            place = Place("w" if kind == "float" else "v", shape, kind, start)
        self._places[value] = place
        return place

    def scratch(self, size: int) -> str:
        """Floats that this node alone needs."""
        start = self._arenas["float"].take(size)
        self._scratch.append(start)
        return f"w + {start}"

    def whole_numbers(self, count: int, type_: str, blocks: int = 0) -> str:
        """Room for what the inputs of a product become, and for a sum of each block; empty if they stay floats."""
        if not type_:
            return ""
        self.whole, self.blocks = max(self.whole, count), max(self.blocks, blocks)
        self.whole_type = type_
        return "s->q, s->z" if blocks else "s->q"

    def share(self, value: ir.Value, source: ir.Value, node: ir.Node, *, offset: int = 0) -> None:
        """The value is a part of another one, without gaps: no statement is needed."""
        place = self.place(source)
        moved = place.offset + offset
        self._places[value] = replace(place, shape=shape_of(value, where(node)), offset=moved, array=None)
        self._held[value] = source

    def view(self, value: ir.Value, source: ir.Value, node: ir.Node, steps: Steps, offset: int) -> None:
        """The value is what lies in `source` from `offset` on with these steps; it is copied if there are gaps."""
        shape = shape_of(value, where(node))
        even = all(size == 1 or step == own for size, step, own in zip(shape, steps, strides_of(shape), strict=True))
        if even and kind_of(value, where(node)) == self.place(source).kind:
            self.share(value, source, node, offset=offset)
            return
        self.copy(self.result(value, node), self.place(source), shape, steps, offset)

    def copy(
        self, target: Place, source: Place, sizes: Sequence[int], steps: Steps, offset: int, start: int = 0
    ) -> None:
        """Copy what lies in `source` with these steps into `target`, from its element `start` on in its own strides."""
        self.lines += loops(
            sizes,
            [target.strides, steps],
            lambda index: [f"{target.at(index[0], start)} = {source.at(index[1], offset)};"],
        )

    def use(self, kernel: str) -> str:
        """The name of a C function; those that are called are part of the file."""
        return f"k_{kernel}"

    def _root(self, value: ir.Value) -> ir.Value:
        """The value whose memory it shares."""
        while value in self._held:
            value = self._held[value]
        return value

    def _may_go(self, value: ir.Value, shape: tuple[int, ...], kind: Kind) -> bool:
        """Whether a value fills memory of its own that holds as much, and is read by this node for the last time."""
        root, place = self._root(value), self.place(value)
        if root not in self._starts or place.shape != shape or place.kind != kind:
            return False
        if self._starts[root][1] != place.offset or self._places[root].size != place.size:
            return False
        same = (other for other in self._places if self._root(other) is root)
        return all(self._last.get(other, self._now) <= self._now for other in same)

    def _free(self) -> None:
        for start in self._scratch:
            self._arenas["float"].give_back(start)
        self._scratch = []
        ends: dict[ir.Value, int] = {}
        for value in self._places:
            root = self._root(value)
            ends[root] = max(ends.get(root, -1), self._last.get(value, self._now))
        for root, end in ends.items():
            if end <= self._now and root in self._starts:
                kind, start = self._starts.pop(root)
                self._arenas[kind].give_back(start)


def safe(text: str) -> str:
    """Text that cannot end a comment of C, nor is anything else than plain characters."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return plain.replace("\\", "/").replace("*/", "* /").replace("/*", "/ *")
