"""A traced program as a table of operations, in which equal ones are one and aliases and whole slices are gone."""

from __future__ import annotations

import hashlib
import operator
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx

_OPS = torch.ops.aten
INPUT, CONSTANT = "input", "constant"
"""Targets of what is not computed."""
_SAME = (
    _OPS.alias.default,
    _OPS.clone.default,
    _OPS.contiguous.default,
    _OPS.detach.default,
    _OPS.detach_.default,
    _OPS.lift_fresh.default,
    _OPS.lift_fresh_copy.default,
)
"""Operators that give their first argument."""
_HARMLESS = (_OPS.detach_.default,)
_DROPOUTS = (_OPS.dropout.default, _OPS.feature_dropout.default, _OPS.alpha_dropout.default)
_PIECES = (_OPS.split.Tensor, _OPS.chunk.default, _OPS.split_with_sizes.default, _OPS.split.sizes)
_FILLED = {_OPS.new_zeros.default: 0.0, _OPS.new_ones.default: 1.0, _OPS.zeros_like.default: 0.0} | {
    _OPS.ones_like.default: 1.0
}
_MANY = 5
"""A tensor cut into so many pieces may be cut into its steps."""
_CODE = re.compile(r'File "([^"]*)", line \d+, in \S+\s+(\S.*)')
_LIBRARY = str(Path(torch.__file__).parent)


@dataclass(eq=False)
class Op:
    """An operation and its result; arguments are trees of operations, numbers and so on."""

    target: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    value: Any = None
    """The result of the tracer: a tensor without numbers, or a size."""
    name: str = ""
    """Of an input or constant."""
    code: str = ""
    """The line of the model that it comes from, where it is known."""

    @property
    def is_size(self) -> bool:
        """A number that depends on sizes alone."""
        return isinstance(self.value, (int, torch.SymInt))


def map_tree(tree: Any, change: Callable[[Any], Any]) -> Any:
    """The same tree with every leaf changed."""
    if isinstance(tree, (list, tuple)):
        return tuple(map_tree(part, change) for part in tree)
    if isinstance(tree, dict):
        return {key: map_tree(part, change) for key, part in tree.items()}
    return change(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """All leaves, in order."""
    if isinstance(tree, (list, tuple)):
        for part in tree:
            yield from leaves(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from leaves(part)
    else:
        yield tree


def used(op: Op) -> Iterator[Op]:
    """The operations whose results an operation takes."""
    for leaf in leaves((op.args, op.kwargs)):
        if isinstance(leaf, Op):
            yield leaf


def key_of(target: Any, args: Any, kwargs: Any) -> Any:
    """What two operations have in common that give the same."""

    def frozen(leaf: Any) -> Any:
        return ("op", id(leaf)) if isinstance(leaf, Op) else (type(leaf).__name__, repr(leaf))

    return target, map_tree(tuple(args), frozen), tuple(sorted(map_tree(dict(kwargs), frozen).items()))


class Graph:
    """The operations of a program, in order."""

    def __init__(self, program: torch.export.ExportedProgram, length: int) -> None:
        """Of a program traced at sequences of `length`."""
        if any(_mutates(node) for node in program.graph.nodes):
            program = program.run_decompositions({})  # writes into tensors become operations
        self.length = length
        self.ops: list[Op] = []
        self.inputs: list[Op] = []
        self.constants: dict[str, Tensor] = {}
        self._table: dict[Any, Op] = {}
        self._sizes: dict[str, Op] = {}
        self._contents: dict[Any, Op] = {}
        known: dict[fx.Node, Any] = {}
        for node in program.graph.nodes:
            known[node] = self._read(node, program, known)
        self.outputs: tuple[Any, ...] = known[next(node for node in program.graph.nodes if node.op == "output")]

    def lookup(self, target: Any, args: Any, kwargs: Any) -> Op | None:
        """The operation with these arguments."""
        return self._table.get(key_of(target, args, kwargs))

    def _read(self, node: fx.Node, program: torch.export.ExportedProgram, known: dict[fx.Node, Any]) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node, program)
        args = map_tree(node.args, lambda leaf: known.get(leaf, leaf) if _is_node(leaf) else leaf)
        kwargs = map_tree(dict(node.kwargs), lambda leaf: known.get(leaf, leaf) if _is_node(leaf) else leaf)
        if node.op == "output":
            return args[0]
        return self._add(node.target, args, kwargs, node.meta.get("val"), _line(node))

    def _placeholder(self, node: fx.Node, program: torch.export.ExportedProgram) -> Any:
        signature = program.graph_signature
        name = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.get(node.name)
        if name is None:
            name = signature.inputs_to_lifted_tensor_constants.get(node.name)
        if name is None:
            op = Op(INPUT, value=node.meta["val"], name=node.name)
            self.inputs.append(op)
            return op
        tensor = program.state_dict.get(name, program.constants.get(name))
        assert isinstance(tensor, Tensor)
        tensor = tensor.detach()
        named = node.name not in signature.inputs_to_lifted_tensor_constants
        content: Any = name
        if not named and tensor.numel() == 1 and tensor.dtype == torch.int64:  # `torch.tensor(t)`
            kwargs = {"dtype": tensor.dtype, "device": torch.device("cpu")}
            return self._add(_OPS.full.default, (tuple(tensor.shape), int(tensor)), kwargs, node.meta["val"], "")
        if not named:  # `torch.tensor(0.5)` in a loop is another constant in every iteration
            content = (tuple(tensor.shape), tensor.dtype, hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest())
        if content not in self._contents:
            label = name if named else f"constant.{content[2][:12]}"
            self.constants[label] = tensor
            self._contents[content] = Op(CONSTANT, value=node.meta["val"], name=label)
        return self._contents[content]

    def _add(self, target: Any, args: Any, kwargs: Any, value: Any, code: str) -> Any:
        """The operation, or the one that gives the same already."""
        simple = self._simplified(target, args, kwargs, value, code)
        if simple is not None:
            return simple
        if isinstance(value, torch.SymInt):
            expression = str(value)
            if expression in self._sizes:
                return self._sizes[expression]
        key = key_of(target, args, kwargs)
        if key in self._table and not _is_random(target):
            return self._table[key]
        op = Op(target, args, kwargs, value, code=code)
        self._table[key] = op
        if isinstance(value, torch.SymInt):
            self._sizes[str(value)] = op
        self.ops.append(op)
        return op

    def _simplified(self, target: Any, args: Any, kwargs: Any, value: Any, code: str) -> Any:
        if target in _SAME or (target in _DROPOUTS and not args[2]):
            return args[0]
        if target in _FILLED:
            return self._filled(target, value, code)
        rules = {
            _OPS.narrow.default: self._narrow,
            _OPS.slice.Tensor: self._slice,
            _OPS.slice_scatter.default: self._overwrite,
            _OPS.copy.default: self._overwrite,
            _OPS.select.int: self._select,
            _OPS.select_scatter.default: self._select_scatter,
            operator.getitem: self._getitem,
        }
        return rules[target](args, value, code) if target in rules else None

    def _overwrite(self, args: Any, value: Any, code: str) -> Any:
        """What is written over the whole of a tensor is the tensor."""
        return args[1] if _same_shape(args[0].value, args[1].value) else None

    def _narrow(self, args: Any, value: Any, code: str) -> Any:
        """`narrow` is a slice."""
        x, axis, start, length = args
        if not isinstance(start, int) or not isinstance(length, int):
            return None
        return self._add(_OPS.slice.Tensor, (x, axis, start, start + length), {}, value, code)

    def _slice(self, args: Any, value: Any, code: str) -> Any:
        """A slice of the whole axis is no slice; ends count from the start."""
        defaults: tuple[Any, ...] = (None, 0, None, None, 1)
        x, axis, start, end, step = tuple(args) + defaults[len(args) :]
        size = x.value.shape[axis]
        whole = end is None or (isinstance(end, int) and end >= (size if isinstance(size, int) else _ALL))
        if step == 1 and start in (None, 0) and whole:
            return x
        if isinstance(size, int) and isinstance(start, (int, type(None))) and isinstance(end, (int, type(None))):
            first, last, _ = slice(start, end, step).indices(size)
            plain = (x, axis % x.value.dim(), first, last, step)
            if plain != (x, axis, start, end, step):
                return self._add(_OPS.slice.Tensor, plain, {}, value, code)
        return None

    def _select(self, args: Any, value: Any, code: str) -> Any:
        """Places count from the start; what was just written into a tensor is not read from it."""
        x, axis, place = args
        size = x.value.shape[axis]
        if not isinstance(place, int) or not isinstance(size, int):
            return None
        plain = (axis % x.value.dim(), place % size)
        if x.target is _OPS.select_scatter.default and x.args[2] == plain[0] and isinstance(x.args[3], int):
            if x.args[3] == plain[1]:
                return x.args[1]
            return self._add(_OPS.select.int, (x.args[0], *plain), {}, value, code)
        if plain != (axis, place):
            return self._add(_OPS.select.int, (x, *plain), {}, value, code)
        return None

    def _select_scatter(self, args: Any, value: Any, code: str) -> Any:
        base, new, axis, place = args
        size = base.value.shape[axis]
        if not isinstance(place, int) or not isinstance(size, int):
            return None
        plain = (base, new, axis % base.value.dim(), place % size)
        if plain != tuple(args):
            return self._add(_OPS.select_scatter.default, plain, {}, value, code)
        return None

    def _getitem(self, args: Any, value: Any, code: str) -> Any:
        """One of the steps into which a tensor was cut."""
        source, place = args
        if not isinstance(source, Op):
            return None
        if source.target is _OPS.unbind.int:
            axis = source.args[1] if len(source.args) > 1 else 0
            return self._add(_OPS.select.int, (source.args[0], axis, place), {}, value, code)
        if source.target in _PIECES and len(source.value) >= min(_MANY, self.length):
            x = source.args[0]
            axis = (source.args[2] if len(source.args) > 2 else source.kwargs.get("dim", 0)) % x.value.dim()
            sizes = [piece.shape[axis] for piece in source.value]
            if all(isinstance(size, int) for size in sizes):
                start = sum(sizes[:place])
                return self._add(_OPS.slice.Tensor, (x, axis, start, start + sizes[place], 1), {}, value, code)
        return None

    def _filled(self, target: Any, value: Any, code: str) -> Any:
        """A tensor of zeros as large as another one depends on sizes alone."""
        sizes = [size if isinstance(size, int) else self._sizes.get(str(size)) for size in value.shape]
        if None in sizes:
            return None
        kwargs = {"dtype": value.dtype, "device": torch.device("cpu")}
        fill = _OPS.ones.default if _FILLED[target] else _OPS.zeros.default
        return self._add(fill, (tuple(sizes),), kwargs, value, code)


_ALL = 2**62


def _is_node(leaf: Any) -> bool:
    from torch import fx

    return isinstance(leaf, fx.Node)


def _line(node: fx.Node) -> str:
    """The line of the model, and not of PyTorch, that made a node; empty where it is not known."""
    found = _CODE.findall(node.meta.get("stack_trace") or "")
    lines: list[str] = [code.strip() for file, code in found if not file.startswith(_LIBRARY)]
    return lines[-1] if lines else ""


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and node.target not in _HARMLESS


def _is_random(target: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())


def _same_shape(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and [str(size) for size in one.shape] == [str(size) for size in other.shape]
