"""Leaves out PyTorch's decomposition of traced programs that it would not change.

Before `torch.onnx.export` translates a program, it traces it once more to replace the operators that ONNX has no
function for by others. That takes longer than the first trace, and most recurrent models have no such operator. Here
the simplest of them are replaced in place, and the second trace is left out if no other remains.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import torch

from exporters.capture.function_library import replaced
from exporters.capture.own_decompositions import OWN_DECOMPOSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx

    Program = torch.export.ExportedProgram

_OPS = torch.ops.aten
_DROPOUTS = (_OPS.dropout.default, _OPS.feature_dropout.default, _OPS.alpha_dropout.default)
"""With the arguments x, p and train."""
_SAME = (_OPS.contiguous.default, _OPS.detach.default, _OPS.alias.default)
"""Operators that give the values of their only tensor."""
_VIEWS = (_OPS.flatten.using_ints, _OPS.unflatten.int, _OPS.reshape.default)
"""Operators that give the values of their first tensor under other axes."""
_tables: dict[int, dict[Any, Any]] = {}
"""Opset -> operator -> how it is decomposed."""


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Within the block, `torch.onnx.export` decomposes only programs that this changes; it may change its program.

    It has no public argument for this. With a version of PyTorch that decomposes elsewhere nothing is left out.
    """
    try:
        from torch._export.utils import _is_preservable_cia_op as keeps_whole
        from torch.onnx._internal.exporter import _decomp, _fx_passes
    except ImportError:
        yield
        return

    def decomposed(program: Program, registry: Any) -> Program:
        opset: int = registry.opset_version
        if opset not in _tables:
            known = set(_decomp.get_onnx_implemented_overloads(registry))
            _tables[opset] = _decomp.create_onnx_friendly_decomposition_table(known) | OWN_DECOMPOSITIONS
        table = _tables[opset]
        if unchanged(program, table, keeps_whole):
            return program
        program = program.run_decompositions(dict(table))
        _replace_views(program.graph)
        return program

    with replaced(_fx_passes, "decompose_with_registry", decomposed):
        yield


def unchanged(program: Program, table: dict[Any, Any], keeps_whole: Callable[[Any], bool]) -> bool:
    """Whether decomposition leaves a program as it is, once the simplest operators are replaced in it, in place.

    Args:
        program: Traced by `torch.export`.
        table: The operators that have a decomposition.
        keeps_whole: Whether an operator that PyTorch itself defines by others can be kept.
    """
    signature, graph = program.graph_signature, program.graph
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        return False
    sizes = _open_sizes(graph)
    plain = all(
        node.op in ("placeholder", "output")
        or (node.op == "call_function" and (_is_simple(node, sizes) or _is_plain(node.target, table, keeps_whole)))
        for node in graph.nodes
    )
    if plain:  # what is decomposed needs its own operators: without `contiguous` a `view` behind it fails
        for old, new in _simplify(graph, sizes).items():
            signature.replace_all_uses(old, new)
    return plain


def _open_sizes(graph: fx.Graph) -> dict[str, tuple[fx.Node, int]]:
    """Symbol of a size -> an input and its axis of that size, preferably those that the program itself reads."""
    read: dict[str, tuple[fx.Node, int]] = {}
    other: dict[str, tuple[fx.Node, int]] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for axis, size in enumerate(value.shape):
                if not isinstance(size, int):
                    other.setdefault(str(size), (node, axis))
        elif node.target is _OPS.sym_size.int and node.args[0].op == "placeholder":
            read.setdefault(str(value), node.args)
    return other | read


def _is_simple(node: fx.Node, sizes: dict[str, tuple[fx.Node, int]]) -> bool:
    """Whether `_simplify` replaces an operator, or drops it."""
    if node.target in _DROPOUTS:
        return node.args[2] is False
    if node.target in _VIEWS:
        return all(isinstance(size, int) or str(size) in sizes for size in node.meta["val"].shape)
    if node.target is _OPS.to.dtype:
        return not any(node.args[2:]) and not node.kwargs
    return node.target in _SAME or node.target is _OPS.numpy_T.default


def _is_plain(target: Any, table: dict[Any, Any], keeps_whole: Callable[[Any], bool]) -> bool:
    """Whether an operator stays; functions of Python such as `getitem` compute sizes or take one of several results."""
    if not isinstance(target, torch._ops.OpOverload):
        return not isinstance(target, torch._ops.HigherOrderOperator)
    if target in table or target._schema.is_mutable:
        return False
    return not _is_defined_by_others(target.name()) or keeps_whole(target)


@functools.cache
def _is_defined_by_others(name: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd")


def _replace_views(graph: fx.Graph) -> None:
    """Views become reshapes: the exporter runs the graph once more, and a tensor may have another layout than before.

    A `contiguous` in front of a view may be gone, and an operator gives another layout decomposed than as a whole.
    """
    for node in graph.nodes:
        if node.target is _OPS.view.default:
            node.target = _OPS.reshape.default


def _simplify(graph: fx.Graph, sizes: dict[str, tuple[fx.Node, int]]) -> dict[str, str]:
    """Replace operators that only rename a tensor or its axes, and drop what nothing reads.

    Returns:
        Name of a node that is gone -> the one that stands for it, which may be an output now.
    """
    gone: dict[str, str] = {}
    first = next(node for node in graph.nodes if node.op != "placeholder")
    read: dict[str, fx.Node] = {}

    def size_of(size: Any) -> Any:
        if isinstance(size, int):
            return size
        if str(size) not in read:
            with graph.inserting_before(first):
                read[str(size)] = graph.call_function(_OPS.sym_size.int, sizes[str(size)])
            read[str(size)].meta["val"] = size
        return read[str(size)]

    for node in list(graph.nodes):
        if node.op != "call_function" or not _is_simple(node, sizes):
            continue
        if node.target is _OPS.numpy_T.default:
            rank = node.meta["val"].dim()
            node.target, node.args = _OPS.permute.default, (node.args[0], [*reversed(range(rank))])
        elif node.target in _VIEWS:
            shape = [size_of(size) for size in node.meta["val"].shape]
            node.target, node.args, node.kwargs = _OPS.reshape.default, (node.args[0], shape), {}
        elif node.target is _OPS.to.dtype and node.meta["val"].dtype != node.args[0].meta["val"].dtype:
            node.target, node.args, node.kwargs = _OPS._to_copy.default, node.args[:1], {"dtype": node.args[1]}
        else:
            if node.args[0].op == "placeholder" and any(user.op == "output" for user in node.users):
                continue  # an input cannot be an output itself
            gone = {old: node.args[0].name if new == node.name else new for old, new in gone.items()}
            gone[node.name] = node.args[0].name
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    _replace_views(graph)
    graph.eliminate_dead_code()
    return gone
