"""Leaves out PyTorch's decomposition of traced programs that it would not change.

Before `torch.onnx.export` translates a program, it traces it once more to replace the operators that ONNX has no
function for by others. That takes longer than the first trace, and most recurrent models have no such operator. Here
the simplest of them are replaced in place, and the second trace is left out if no other remains.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from typing import TYPE_CHECKING, Any

import torch

from exporters.capture import decomposition_start
from exporters.capture.function_library import replaced
from exporters.capture.own_decompositions import OWN_DECOMPOSITIONS
from exporters.capture.simple_operators import SAME, Call, written

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from torch import fx

    Program = torch.export.ExportedProgram

_OPS = torch.ops.aten
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
        program = decomposition_start.decomposed(program, table)
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
        or (
            node.op == "call_function"
            and (_simple(node, sizes) is not None or _is_plain(node.target, table, keeps_whole))
        )
        for node in graph.nodes
    )
    if plain:  # what is decomposed needs its own operators: without `contiguous` a `view` behind it fails
        for old, new in _simplify(graph, sizes).items():
            signature.replace_all_uses(old, new)
    return plain


def _open_sizes(graph: fx.Graph) -> dict[str, fx.Node | tuple[fx.Node, int]]:
    """Symbol of a size -> an input and its axis of that size, or a node that reads it from values.

    Inputs that the program itself asks for their sizes come first.
    """
    read: dict[str, fx.Node | tuple[fx.Node, int]] = {}
    other: dict[str, fx.Node | tuple[fx.Node, int]] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, torch.Tensor):
            for axis, size in enumerate(value.shape):
                if not isinstance(size, int):
                    other.setdefault(str(size), (node, axis))
        elif node.target is _OPS.sym_size.int and node.args[0].op == "placeholder":
            read.setdefault(str(value), node.args)
        elif node.target is _OPS.item.default and isinstance(value, torch.SymInt):
            read.setdefault(str(value), node)
    return other | read


def _simple(node: fx.Node, sizes: Collection[str]) -> Call | None:
    """What `_simplify` replaces an operator by, if that and all sizes in it are known."""
    call = written(node)
    if call is None:
        return None
    parts = [part for part in call.arguments if isinstance(part, list)]
    known = all(isinstance(size, (int, torch.fx.Node)) or str(size) in sizes for part in parts for size in part)
    return call if known else None


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


def _simplify(graph: fx.Graph, sizes: Mapping[str, fx.Node | tuple[fx.Node, int]]) -> dict[str, str]:
    """Replace the simplest operators by what stands for them, and drop what nothing reads.

    Returns:
        Name of a node that is gone -> the one that stands for it, which may be an output now.
    """
    gone: dict[str, str] = {}
    first = next(node for node in graph.nodes if node.op != "placeholder")
    read: dict[str, fx.Node] = {}

    def size_of(size: Any) -> Any:
        if isinstance(size, (int, torch.fx.Node)):
            return size
        source = sizes[str(size)]
        if not isinstance(source, tuple):
            return source
        if str(size) not in read:
            with graph.inserting_before(first):
                read[str(size)] = graph.call_function(_OPS.sym_size.int, source)
            read[str(size)].meta["val"] = size
        return read[str(size)]

    for node in list(graph.nodes):
        call = _simple(node, sizes) if node.op == "call_function" else None
        if call is None:
            continue
        if call is not SAME:
            sized = [[*map(size_of, part)] if isinstance(part, list) else part for part in call.arguments]
            _put(node, call, tuple(sized))
        elif node.args[0].op == "placeholder" and any(user.op == "output" for user in node.users):
            _put(node, Call(_OPS.clone.default, node.args[:1]), node.args[:1])  # an input is no output itself
        else:
            gone = {old: node.args[0].name if new == node.name else new for old, new in gone.items()}
            gone[node.name] = node.args[0].name
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    _replace_views(graph)
    graph.eliminate_dead_code()
    return gone


def _put(node: fx.Node, call: Call, arguments: tuple[Any, ...]) -> None:
    """Make a node the call, or one of its results."""
    if call.result is None:
        node.target, node.args, node.kwargs = call.target, arguments, dict(call.options)
        return
    graph = node.graph
    with graph.inserting_before(node):
        whole = graph.call_function(call.target, arguments, dict(call.options))
    values = [part.meta["val"] if isinstance(part, torch.fx.Node) else part for part in arguments]
    with node.meta["val"].fake_mode:
        whole.meta = {**node.meta, "val": call.target(*values, **call.options)}
    node.target, node.args, node.kwargs = operator.getitem, (whole, call.result), {}
