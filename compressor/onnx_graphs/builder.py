"""Builds nodes of an ONNX graph: onnx-ir's tape with names, constants from numpy, and the exchange of a node."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


class Names:
    """Names of values that nothing else in a graph has."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """`taken` are those that are there."""
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    @classmethod
    def of(cls, graph: ir.Graph) -> Names:
        """With the names of all values of a graph and of the bodies in it."""
        taken: set[str] = set()
        for each in (graph, *graph.subgraphs()):
            taken |= {str(value.name) for value in (*each.inputs, *each.initializers.values())}
            taken |= {str(value.name) for node in each for value in node.outputs}
        return cls(taken)

    def new(self, stem: str) -> str:
        """`stem`, or `stem` and a number."""
        name, number = stem, self._next.get(stem, 1)
        while name in self._taken:
            number += 1
            name = f"{stem}.{number}"
        self._next[stem] = number
        self._taken.add(name)
        return name


class Builder(Tape):
    """Collects new nodes and constants, which go into a graph together.

    Example::

        do = Builder(Names.of(graph), "gates")
        product = do("MatMul", [x, do.constant(weight)])
        left, right = do.several("Split", [product, do.integers(3, 3)], 2, axis=-1)
        replace(node, do, [do("Add", [left, right])])
    """

    def __init__(
        self,
        names: Names | None = None,
        stem: str = "{operator}",
        *,
        node_names: bool = True,
        constant_nodes: bool = False,
    ) -> None:
        """Nothing is in it.

        Args:
            names: Gives names to values.
            stem: What these begin with; `{operator}` becomes the type of the node.
            node_names: The graph names the nodes; else they have no name, as in a file that is to be small.
            constant_nodes: Sizes and axes are `Constant` nodes and not initializers.
        """
        super().__init__()
        self.names = names or Names()
        self._stem, self._node_names, self._constant_nodes = stem, node_names, constant_nodes
        self._integers: dict[tuple[int, ...], ir.Value] = {}

    def __call__(
        self, operator: str, inputs: Sequence[ir.Value | None], *, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Add a node with one output, and give that."""
        return self.several(operator, inputs, 1, domain=domain, attributes=attributes)[0]

    def several(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        outputs: int,
        *,
        domain: str = "",
        name: str | None = None,
        attributes: Mapping[str, Any] = MappingProxyType({}),
        **more: Any,
    ) -> list[ir.Value]:
        """Add a node with several outputs.

        Args:
            operator: Its type.
            inputs: None for one that is left out.
            outputs: How many.
            domain: Of the operator.
            name: Of the node; the graph gives one if it is left out.
            attributes: By name; more may come by keyword.
            more: See `attributes`.
        """
        node_name = name if self._node_names else ""
        values = self.op_multi_out(
            operator, inputs, {**attributes, **more}, num_outputs=outputs, domain=domain, name=node_name
        )
        for value in values:
            value.name = self.new_name(operator)
        return list(values)

    def constant(self, array: NDArray[Any], name: str = "") -> ir.Value:
        """Add an initializer; `name` gets a number if it is taken."""
        stem = name or self._stem.removesuffix("{operator}").removesuffix(".") + ".constant" * self._node_names
        return self.initializer(ir.tensor(np.asarray(array, order="C")), self.names.new(stem))

    def integers(self, *numbers: int) -> ir.Value:
        """A vector of int64, such as sizes or axes; the same value for the same numbers."""
        if numbers not in self._integers:
            array = np.array(numbers, np.int64)
            self._integers[numbers] = (
                self("Constant", [], value=ir.tensor(array)) if self._constant_nodes else self.constant(array)
            )
        return self._integers[numbers]

    def new_name(self, operator: str) -> str:
        """A name for a value that an operator gives."""
        return self.names.new(self._stem.replace("{operator}", operator))

    def insert_before(self, node: ir.Node) -> None:
        """Put everything into the graph of a node, in front of it."""
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        for value in self.initializers:
            graph.register_initializer(value)
        graph.insert_before(node, self.nodes)


def replace(node: ir.Node, builder: Builder, outputs: Sequence[ir.Value | None]) -> None:
    """Exchange a node for what a builder holds; the new outputs get the names, types and shapes of the old ones.

    Args:
        node: In a graph; it is removed.
        builder: Its nodes and constants go into the graph.
        outputs: One for each output of the node, of the builder's nodes; None for one that nothing uses.
    """
    graph = node.graph
    assert graph is not None
    builder.insert_before(node)
    for old, new in zip(node.outputs, outputs, strict=True):
        if new is None:
            continue
        new.shape, new.type, name = old.shape, old.type, old.name
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        old.name, new.name = None, name
    graph.remove(node, safe=True)


def first_name(node: ir.Node) -> str:
    """Name of a node's first output that has one."""
    return next((value.name for value in node.outputs if value.name), "")
