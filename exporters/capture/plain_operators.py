"""Rewrites a traced module into the few operators that converters for phones take up best; its outputs stay the same.

A product with a weight is one `linear` (which quantizers and XNNPACK look for), a gate of a recurrent cell is a `slice`
(a `chunk` would end the part that XNNPACK runs), and what depends on weights only is computed here once.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn

_OPS = torch.ops.aten
_TRANSPOSED = (_OPS.t.default, _OPS.numpy_T.default)
_PRODUCTS = (_OPS.matmul.default, _OPS.mm.default)
_SPLITS = (_OPS.chunk.default, _OPS.split.Tensor, _OPS.split_with_sizes.default, _OPS.unsafe_chunk.default)
_RESHAPES = (
    _OPS.squeeze.default,
    _OPS.squeeze.dim,
    _OPS.squeeze.dims,
    _OPS.unsqueeze.default,
    _OPS.flatten.using_ints,
    _OPS.unflatten.int,
)


def rewrite(module: fx.GraphModule) -> None:
    """Replace operators in a traced module by those named above; its outputs stay the same."""
    _fold_constants(module)
    for node in list(module.graph.nodes):
        if node.target in _PRODUCTS or node.target is _OPS.addmm.default:
            _to_linear(module, node)
    for node in list(module.graph.nodes):
        if node.target is _OPS.add.Tensor:
            _to_bias(module, node)
    for node in list(module.graph.nodes):
        if node.target in _SPLITS:
            _to_slices(module.graph, node)
        elif node.target is _OPS.unbind.int:
            _to_slices_and_views(module.graph, node)
        elif node.target is _OPS.select.int:
            _to_slice_and_view(module.graph, node)
        elif node.target in _RESHAPES:
            _to_view(module.graph, node)
    module.graph.eliminate_dead_code()
    _drop_unused(module)
    module.graph.lint()
    module.recompile()


# --- what depends on weights only ---


def _fold_constants(module: fx.GraphModule) -> None:
    """Compute once what only weights go into, if the result is smaller than they are."""
    values: dict[fx.Node, Tensor] = {}
    sizes: dict[fx.Node, int] = {}  # numbers in the weights that went in
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = _attribute(module, str(node.target))
            if isinstance(value, Tensor):
                values[node], sizes[node] = value.detach(), value.numel()
        elif node.op == "call_function" and node.all_input_nodes and all(n in values for n in node.all_input_nodes):
            result = node.target(*fx.map_arg(node.args, values.get), **fx.map_arg(node.kwargs, values.get))
            if isinstance(result, Tensor):
                values[node], sizes[node] = result, sum(sizes[given] for given in node.all_input_nodes)
    for index, (node, value) in enumerate(values.items()):
        needed = any(user not in values for user in node.users)
        if node.op == "call_function" and needed and value.numel() < sizes[node]:
            name = f"_folded_{index}"
            module.register_buffer(name, value.clone())
            with module.graph.inserting_before(node):
                folded = module.graph.get_attr(name)
            folded.meta = dict(node.meta)
            node.replace_all_uses_with(folded)
    module.graph.eliminate_dead_code()


def _drop_unused(module: fx.GraphModule) -> None:
    """Delete the weights that nothing reads any more, which would be saved all the same."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*module.named_parameters(), *module.named_buffers()) if name not in used]:
        *path, last = name.split(".")
        delattr(module.get_submodule(".".join(path)), last)


def _attribute(module: nn.Module, name: str) -> object:
    *path, last = name.split(".")
    return getattr(module.get_submodule(".".join(path)), last, None)


def _constant(module: fx.GraphModule, node: object) -> Tensor | None:
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = _attribute(module, str(node.target))
    return value if isinstance(value, Tensor) else None


# --- products with weights ---


def _to_linear(module: fx.GraphModule, node: fx.Node) -> None:
    """X W^T, or x W^T + b as one operator, becomes a `linear`."""
    bias, x, right = (None, *node.args) if node.target in _PRODUCTS else node.args[:3]
    if node.target is _OPS.addmm.default and (node.kwargs or _constant(module, bias) is None):
        return
    weight = _weight_of(module, right)
    if weight is None:
        return
    with module.graph.inserting_before(node):
        linear = module.graph.call_function(_OPS.linear.default, (x, weight, bias))
    _replace(node, linear)


def _weight_of(module: fx.GraphModule, right: object) -> fx.Node | None:
    """The weight (O, I) whose transpose a node is."""
    if not isinstance(right, fx.Node) or not right.args:
        return None
    weight = right.args[0]
    constant = _constant(module, weight)
    if constant is None or constant.dim() != 2:
        return None
    plain = right.target in _TRANSPOSED
    swapped = right.target is _OPS.transpose.int and {axis % 2 for axis in right.args[1:3]} == {0, 1}  # type: ignore[operator]
    permuted = right.target is _OPS.permute.default and [axis % 2 for axis in right.args[1]] == [1, 0]  # type: ignore[union-attr, operator]
    assert isinstance(weight, fx.Node)
    return weight if plain or swapped or permuted else None


def _to_bias(module: fx.GraphModule, node: fx.Node) -> None:
    """`linear` without a bias, and a vector added to it, become one."""
    if node.kwargs:
        return
    for linear, bias in (node.args, node.args[::-1]):
        vector = _constant(module, bias)
        if vector is None or vector.dim() != 1 or not isinstance(linear, fx.Node):
            continue
        if linear.target is not _OPS.linear.default or len(linear.users) != 1:
            continue
        given = [*linear.args, None][:3]
        weight = _constant(module, given[1])
        if given[2] is None and weight is not None and weight.shape[0] == vector.shape[0]:
            with module.graph.inserting_before(node):
                joined = module.graph.call_function(_OPS.linear.default, (given[0], given[1], bias))
            _replace(node, joined)
            return


# --- parts of tensors ---


def _static_shape(node: object) -> list[int] | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return list(value.shape)


def _to_slices(graph: fx.Graph, node: fx.Node) -> None:
    """Pieces of a tensor along an axis, each of which is asked for by its place."""
    x = node.args[0]
    shape = _static_shape(x)
    if shape is None or not all(user.target is operator.getitem for user in node.users):
        return
    axis = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
    assert isinstance(axis, int)
    starts = [0]
    for piece in node.meta["val"]:
        starts.append(starts[-1] + int(piece.shape[axis]))
    for user in list(node.users):
        place = user.args[1]
        assert isinstance(place, int)
        with graph.inserting_before(user):
            piece = graph.call_function(_OPS.slice.Tensor, (x, axis % len(shape), starts[place], starts[place + 1]))
        _replace(user, piece)
    graph.erase_node(node)


def _to_slices_and_views(graph: fx.Graph, node: fx.Node) -> None:
    """All positions of a tensor along an axis."""
    for user in list(node.users):
        if user.target is operator.getitem:
            with graph.inserting_before(user):
                chosen = graph.call_function(
                    _OPS.select.int, (node.args[0], node.args[1] if len(node.args) > 1 else 0, user.args[1])
                )
            _replace(user, chosen)
            _to_slice_and_view(graph, chosen)


def _to_slice_and_view(graph: fx.Graph, node: fx.Node) -> None:
    """One position of a tensor along an axis."""
    x, axis, place = node.args[:3]
    shape, wanted = _static_shape(x), _static_shape(node)
    if shape is None or wanted is None:
        return
    assert isinstance(axis, int)
    assert isinstance(place, int)
    axis, start = axis % len(shape), place % shape[axis]
    with graph.inserting_before(node):
        piece = graph.call_function(_OPS.slice.Tensor, (x, axis, start, start + 1))
        view = graph.call_function(_OPS.reshape.default, (piece, wanted))
    _replace(node, view)


def _to_view(graph: fx.Graph, node: fx.Node) -> None:
    """The same numbers in another shape."""
    wanted = _static_shape(node)
    if wanted is None or _static_shape(node.args[0]) is None:
        return
    with graph.inserting_before(node):
        view = graph.call_function(_OPS.reshape.default, (node.args[0], wanted))
    _replace(node, view)


def _replace(old: fx.Node, new: fx.Node) -> None:
    new.meta = dict(old.meta)
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
