"""A graph as statements of C: memory is planned, and each node is written by the function of its operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import ExportError
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
            ExportError: An operator or a size has no C here.
        """
        self.lines: list[str] = []
        self.constants: dict[str, Constant] = {}
        self._stored: dict[tuple[str, bytes], str] = {}
        self.used: set[str] = set()
        self.rounding = rounding
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
        last = _last_uses(graph)
        self._biases = _biases(graph)
        added = {add for add, _ in self._biases.values()}
        for index, node in enumerate(graph):
            if node in added:  # written with the product before it
                self._free(node, index, last)
                continue
            write = writers.get(node.op_type if node.domain in ("", "ai.onnx") else "")
            if write is None:
                raise ExportError(f"{where(node)} has no C here", hint=HINT)
            self.operators[node.op_type] = self.operators.get(node.op_type, 0) + 1
            self.lines.append(f"/* {safe(where(node))} */")
            write(self, node)
            self._free(node, index, last)
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
        """A constant for any array of float32, int32 or int8."""
        types: dict[str, str] = {"float32": "float", "int32": "int32_t", "int8": "signed char"}
        kind = types.get(str(array.dtype))
        if kind is None:
            raise ExportError(f"the constant `{comment}` is of {array.dtype}, which has no C here", hint=HINT)
        key = kind, array.tobytes()
        name = self._stored.setdefault(key, f"c{len(self.constants)}")
        if name not in self.constants:  # layers that share weights share the array too
            self.constants[name] = Constant(name, kind, np.ascontiguousarray(array), safe(comment))
        return Place(name, array.shape, "int32_t" if kind == "int32_t" else "float", array=array)

    def with_bias(self, node: ir.Node) -> tuple[ir.Value, str]:
        """Where the result of a product goes, and its bias: that of an addition that alone reads the result."""
        if node not in self._biases:
            return node.outputs[0], "NULL"
        add, bias = self._biases[node]
        return add.outputs[0], self.store(bias, f"bias of {node.name}").pointer

    def result(self, value: ir.Value, node: ir.Node) -> Place:
        """Where the result of a node goes."""
        shape, kind = shape_of(value, where(node)), kind_of(value, where(node))
        direct = self._outputs.get(value.name or "") if value.is_graph_output() else None
        if direct is not None:
            place = Place(direct, shape, kind)
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
        """The name of a C function that is then part of the file."""
        self.used.add(kernel)
        return f"k_{kernel}"

    def _free(self, node: ir.Node, index: int, last: Mapping[ir.Value, int]) -> None:
        for start in self._scratch:
            self._arenas["float"].give_back(start)
        self._scratch = []
        ends: dict[ir.Value, int] = {}
        for value in self._places:
            root = value
            while root in self._held:
                root = self._held[root]
            ends[root] = max(ends.get(root, -1), last.get(value, index))
        for root, end in ends.items():
            if end <= index and root in self._starts:
                kind, start = self._starts.pop(root)
                self._arenas[kind].give_back(start)


def _biases(graph: ir.Graph) -> dict[ir.Node, tuple[ir.Node, NDArray[Any]]]:
    """Products with a constant matrix -> the addition that follows each of them, and the constant row that it adds."""
    biases: dict[ir.Node, tuple[ir.Node, NDArray[Any]]] = {}
    for node in graph:
        if node.op_type != "MatMul" or node.inputs[1] is None or constant(node.inputs[1]) is None:
            continue
        value = node.outputs[0]
        users = [use.node for use in value.uses()]
        if len(users) != 1 or users[0].op_type != "Add" or value.is_graph_output():
            continue
        other = next(item for item in users[0].inputs if item is not value)
        bias = None if other is None else constant(other)
        if bias is not None and value.shape is not None and bias.size == bias.shape[-1:][0] == value.shape[-1]:
            biases[node] = users[0], bias.ravel()
    return biases


def _last_uses(graph: ir.Graph) -> dict[ir.Value, int]:
    """Value -> the place of the last node that reads it; outputs are read at the end."""
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(graph):
        for value in node.inputs:
            if value is not None:
                last[value] = index
    for value in graph.outputs:
        last[value] = 2**31
    return last


def safe(text: str) -> str:
    """Text that cannot end a comment of C, nor is anything else than plain characters."""
    plain = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return plain.replace("\\", "/").replace("*/", "* /").replace("/*", "/ *")
