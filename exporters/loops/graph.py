"""A traced program as a table of operations, in which equal ones are one."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from exporters.capture import decomposition_start
from exporters.loops.operations import CONSTANT, INPUT, Op, key_of, map_tree
from exporters.loops.simplify import Simplifier

_OPS = torch.ops.aten
_HARMLESS = (_OPS.detach_.default,)
_CODE = re.compile(r'File "([^"]*)", line \d+, in \S+\s+(\S.*)')
_LIBRARY = str(Path(torch.__file__).parent)


class Graph:
    """The operations of a program, in order."""

    def __init__(self, program: torch.export.ExportedProgram, length: int) -> None:
        """Of a program traced at sequences of `length`."""
        if any(_mutates(node) for node in program.graph.nodes):
            program = decomposition_start.decomposed(program, {})  # writes into tensors become operations
        self.length = length
        self.ops: list[Op] = []
        self.inputs: list[Op] = []
        self.constants: dict[str, Tensor] = {}
        self._table: dict[Any, Op] = {}
        self._sizes: dict[str, Op] = {}
        self._contents: dict[Any, Op] = {}
        self._simplifier = Simplifier(self._add, self._sizes, length)
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

        def operation(leaf: Any) -> Any:
            return known.get(leaf, leaf) if isinstance(leaf, fx.Node) else leaf

        args, kwargs = map_tree((node.args, dict(node.kwargs)), operation)
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
        named = node.name not in signature.inputs_to_lifted_tensor_constants
        return self._constant(tensor.detach(), name if named else None, node.meta["val"])

    def _constant(self, tensor: Tensor, name: str | None, value: Any) -> Any:
        """A weight by its name; another constant by its content, as `torch.tensor(0.5)` is a new one at every step."""
        if name is None and tensor.numel() == 1 and tensor.dtype == torch.int64:  # `torch.tensor(t)`
            kwargs = {"dtype": tensor.dtype, "device": torch.device("cpu")}
            return self._add(_OPS.full.default, (tuple(tensor.shape), int(tensor)), kwargs, value, "")
        content: Any = name
        if name is None:
            content = (tuple(tensor.shape), tensor.dtype, hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest())
        if content not in self._contents:
            label = f"constant.{content[2][:12]}" if name is None else name
            self.constants[label] = tensor
            self._contents[content] = Op(CONSTANT, value=value, name=label)
        return self._contents[content]

    def _add(self, target: Any, args: Any, kwargs: Any, value: Any, code: str) -> Any:
        """The operation, or the one that gives the same already."""
        simple = self._simplifier.simplified(target, args, value, code)
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


def _line(node: fx.Node) -> str:
    """The line of the model, and not of PyTorch, that made a node; empty if it is not known."""
    calls = _CODE.findall(node.meta.get("stack_trace") or "")
    lines: list[str] = [code.strip() for file, code in calls if not file.startswith(_LIBRARY)]
    return lines[-1] if lines else ""


def _mutates(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable and node.target not in _HARMLESS


def _is_random(target: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
