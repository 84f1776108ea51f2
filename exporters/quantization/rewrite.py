"""Writes a graph anew with its matrices in their forms; every value that other nodes read keeps its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from compressor.onnx_graphs.builder import Names, replace
from compressor.onnx_graphs.recurrent_node import OPERATORS as RECURRENT
from compressor.onnx_graphs.walk import STANDARD, graphs
from exporters.passes import release
from exporters.quantization import recurrent
from exporters.quantization.forms import arithmetic
from exporters.quantization.matrices import is_plain
from exporters.quantization.products import DOMAIN, Products

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from compressor.onnx_graphs.builder import Builder
    from exporters.quantization.matrices import Form
    from exporters.quantization.weights import Weights


def rewrite(
    proto: onnx.ModelProto,
    weights: Weights,
    forms: Mapping[str, Form],
    *,
    exact: bool = False,
    by_row: bool = False,
    folder: Path | None = None,
) -> onnx.ModelProto:
    """The graph with its matrices in the given forms.

    Args:
        proto: The float graph; it is not changed.
        weights: Its matrices.
        forms: Matrix -> form; what is not named stays float.
        exact: Round weights only, so that the graph computes what `restored` does: same places, same integers, same
            bodies, but products in float. What is proven of it holds for the structure of the graph itself.
        by_row: What integers multiply has a scale for each position, as a step file of the same matrices has it.
        folder: Of the file of weights that do not lie in the graph itself; they stay there.
    """
    model = ir.from_proto(proto)
    graph = model.graph
    if folder is not None:
        ir.external_data.set_base_dir(graph, folder)
    changed = {name: form for name, form in forms.items() if form != "float"}
    opset = graph.opset_imports.get("") or 0
    products = Products(weights, changed, Names.of(graph), exact=exact, by_row=opset if by_row else 0)
    for node in list(graph.all_nodes()):
        _rewrite(node, products)
    products.top.insert_before(next(iter(graph)))
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
    if any(node.domain == DOMAIN for node in graph.all_nodes()):
        graph.opset_imports.setdefault(DOMAIN, 1)
    rewritten = release.to_proto(model)
    for each in graphs(rewritten.graph):
        del each.value_info[:]
    return rewritten


def _rewrite(node: ir.Node, products: Products) -> None:
    """One node of the graph or of a body."""
    forms = [None if value is None else products.forms.get(str(value.name)) for value in node.inputs]
    if not any(forms):
        return
    do = products.builder()
    plain = node.domain in STANDARD and is_plain(ir.to_proto(node))
    outputs = _replacement(do, node, products) if plain else None
    if outputs is not None:
        replace(node, do, outputs)
        return
    for place, (value, form) in enumerate(zip(node.inputs, forms, strict=True)):
        if value is not None and form:
            node.replace_input_with(place, products.floats(str(value.name)))


def _replacement(do: Builder, node: ir.Node, products: Products) -> list[ir.Value | None] | None:
    """The outputs of a node by operators of its matrix's form; None if it stays as it is, on weights in float."""
    if node.op_type in RECURRENT:
        return recurrent.replacement(do, node, products)
    first, second = node.inputs[:2] if len(node.inputs) > 1 else (None, None)
    if first is None or second is None:
        return None
    if node.op_type == "Gather" and str(first.name) in products.forms:
        return [products.rows(do, str(first.name), second)]
    if node.op_type in ("MatMul", "Gemm") and arithmetic(products.form(str(second.name))) in ("integer", "int4"):
        return _product(do, node, first, str(second.name), products)
    return None


def _product(do: Builder, node: ir.Node, x: ir.Value, name: str, products: Products) -> list[ir.Value | None] | None:
    """A MatMul or Gemm as a product of integers or 4 bits."""
    if str(x.name) in products.forms:
        return None
    product = products.product(do, x, name)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return [product if bias is None else do("Add", [product, bias])]
