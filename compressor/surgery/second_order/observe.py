"""What the matrices of a model multiply while calibration batches run through it, summed up to second moments."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.nn.attention.plain import plain_attention
from compressor.nn.least_squares import Moments
from compressor.nn.operations import Operations
from compressor.nn.recurrent.layers import is_layer, is_step_module, parts
from compressor.surgery.refit.calibration import CONVOLUTIONS, Call, consumed, evaluating, patches, watching

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    _Find = Callable[[Tensor], "Operand | None"]
    _Record = Callable[["Operand", Callable[[], Iterator[Tensor]]], Any]

_PLACES = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
"""Products x M -> the place of x (N, K), before that of M (K, N)."""
_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
"""PyTorch's functions."""


@dataclass(frozen=True)
class Operand:
    """Rows of a parameter, or columns of it, that are multiplied by the same inputs."""

    parameter: str
    start: int
    stop: int
    columns: bool = False
    """The outputs are columns of the parameter, of a product x W."""

    def of(self, parameter: Tensor) -> Tensor:
        """One row (K,) for each output, as a view of the parameter."""
        rows = parameter.T if self.columns else parameter.flatten(1)
        return rows[self.start : self.stop]


class Observed:
    """A model that tells what each of its matrices is multiplied by."""

    def __init__(self, model: nn.Module) -> None:
        """`model` is run as it is, and not changed."""
        self.model = model
        self._by_storage = {
            parameter.untyped_storage().data_ptr(): (name, parameter) for name, parameter in model.named_parameters()
        }

    def order(self, inputs: tuple[Tensor, ...]) -> list[Operand]:
        """What is multiplied in one run, in the order of first use."""
        seen: dict[Operand, None] = {}
        self._run([inputs], None, lambda operand, _: seen.setdefault(operand))
        return list(seen)

    def moments(self, batches: Iterable[tuple[Tensor, ...]], wanted: Collection[Operand]) -> dict[Operand, Moments]:
        """The second moments of what some operands are multiplied by; steps of padding in packed sequences left out."""
        sums: dict[Operand, Moments] = {}

        def add(operand: Operand, applied: Callable[[], Iterator[Tensor]]) -> None:
            for part in applied():
                rows = part.double()
                if operand not in sums:
                    sums[operand] = Moments(rows.shape[1], 0, rows.device)
                sums[operand].add(rows, rows.new_zeros(len(rows), 0))

        self._run(batches, wanted, add)
        return sums

    def _run(
        self,
        batches: Iterable[tuple[Tensor, ...]],
        wanted: Collection[Operand] | None,
        record: _Record,
    ) -> None:
        """Tell `record` of each product; what it multiplies is computed only if that is asked for.

        `wanted`: of these products only.
        """
        modules = {
            name: module
            for name, module in self.model.named_modules()
            if is_layer(module) or is_step_module(module) or _is_whole_convolution(module)
        }
        inside = {id(parameter) for module in modules.values() for parameter in module.parameters()}

        def if_wanted(operand: Operand, applied: Callable[[], Iterator[Tensor]]) -> None:
            if wanted is None or operand in wanted:
                record(operand, applied)

        products = _Products(lambda matrix: self._find(matrix, inside), if_wanted)

        def called(name: str, call: Call) -> None:
            with products.paused():
                self._tell(modules[name], call, wanted, record)

        with ExitStack() as stack:
            for context in (evaluating(self.model), plain_attention(), watching(self.model, list(modules), called)):
                stack.enter_context(context)
            for inputs in batches:
                with products:
                    self.model(*inputs)

    def _tell(
        self, module: nn.Module, call: Call, wanted: Collection[Operand] | None, record: Callable[..., Any]
    ) -> None:
        """The products inside a convolution or recurrent module, in their order."""
        operands = {local: self._whole(getattr(module, local)) for local in _matrices(module)}
        if wanted is None:
            for operand in operands.values():
                record(operand, lambda: iter(()))
            return
        left = [local for local, operand in operands.items() if operand in wanted]
        applied = patches(module, call) if isinstance(module, CONVOLUTIONS) else None
        if applied is not None and left:
            record(operands["weight"], lambda: applied)
        elif left:  # what lies behind the last one is not computed
            for local, inputs in consumed(module, call):
                if local in left:
                    left.remove(local)
                    record(operands[local], lambda inputs=inputs: iter([inputs]))
                if not left:
                    break

    def _whole(self, parameter: Tensor) -> Operand:
        name, _ = self._by_storage[parameter.untyped_storage().data_ptr()]
        return Operand(name, 0, len(parameter))

    def _find(self, matrix: Tensor, inside: Collection[int]) -> Operand | None:
        """The operand whose rows a matrix (N, K) is; None if it is not a part of one parameter with whole rows.

        `inside`: parameters of modules that tell of their products themselves.
        """
        name, parameter = self._by_storage.get(matrix.untyped_storage().data_ptr(), ("", None))
        if (
            parameter is None
            or id(parameter) in inside
            or parameter.dim() != 2
            or not parameter.is_contiguous()
            or not len(matrix)
        ):
            return None
        rows, width = parameter.shape
        offset = int(matrix.storage_offset()) - int(parameter.storage_offset())
        if matrix.stride() == (width, 1) and matrix.shape[1] == width and offset % width == 0:
            return Operand(name, offset // width, offset // width + len(matrix))
        if matrix.stride() == (1, width) and matrix.shape[1] == rows and 0 <= offset < width:
            return Operand(name, offset, offset + len(matrix), columns=True)
        return None


def _matrices(module: nn.Module) -> list[str]:
    """Local names of the matrices of a convolution or recurrent module, in the order of their use."""
    if isinstance(module, CONVOLUTIONS):
        return ["weight"]
    assert is_layer(module) or is_step_module(module)
    return [name for part in parts(module) for key, name in part.names.items() if key.startswith("weight")]


def _is_whole_convolution(module: nn.Module) -> bool:
    return isinstance(module, CONVOLUTIONS) and module.groups == 1


class _Products(TorchFunctionMode):
    """Tells of products of parameters that the model's code writes itself, linear layers and attention included.

    Below autograd every one of them is a `mm` or `addmm` of a view of the parameter. PyTorch's recurrent functions are
    left alone: they would take every operator of every step through Python, and their modules tell of themselves.
    """

    def __init__(self, find: _Find, record: _Record) -> None:
        super().__init__()
        self._below, self._pauses = _Operators(find, record), 0

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function; see the class."""
        if self._pauses or getattr(func, "__name__", "") in _RECURRENT:
            return func(*args, **(kwargs or {}))
        with self._below:
            return func(*args, **(kwargs or {}))

    def paused(self) -> _Pause:
        """Within the block nothing is told."""
        return _Pause(self)

    def count(self, change: int) -> None:
        """Of the blocks in which nothing is told."""
        self._pauses += change


class _Operators(Operations):
    """Tells of `mm` and `addmm` with a parameter as the right side."""

    def __init__(self, find: _Find, record: _Record) -> None:
        super().__init__()
        self._find, self._record = find, record

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator; see the class."""
        if func in _PLACES:
            inputs, matrix = args[_PLACES[func] : _PLACES[func] + 2]
            operand = self._find(matrix.T)
            if operand is not None:
                self._record(operand, lambda: iter([inputs]))
        return func(*args, **(kwargs or {}))


class _Pause:
    def __init__(self, products: _Products) -> None:
        self._products = products

    def __enter__(self) -> None:
        self._products.count(1)

    def __exit__(self, *_: object) -> None:
        self._products.count(-1)
