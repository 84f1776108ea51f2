"""Programs that a converter in another Python environment can read: traced, without the user's code, of few operators.

A program of `torch.export` saved to a file needs nothing but PyTorch to be loaded. What converters for phones take up
best is written the way they know it: a product with a weight is one `linear` (which quantizers and XNNPACK look for),
a gate of a recurrent cell is a `slice` (a `chunk` would end the part that XNNPACK runs), what depends on weights only
is computed here once, and recurrent layers are unrolled into cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import ExportError
from compressor.nn.attention.plain import plain_attention
from compressor.nn.hooks import hooked
from compressor.nn.recurrent.cells import CELLS, Cell
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.layers import RECURRENT, directions, is_step_module
from exporters.capture import decomposition_start
from exporters.capture import program as torch_capture
from exporters.capture.plain_operators import rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def capture(
    model: nn.Module,
    inputs: Sequence[Tensor],
    axes: Mapping[str, Mapping[int, str]],
    bounds: Mapping[str, tuple[int, int]],
) -> torch.export.ExportedProgram:
    """Trace `model` into plain operators.

    Args:
        model: In evaluation mode, on the CPU.
        inputs: Its arguments, each open axis at least 2 long.
        axes: Input name -> {axis: name} of the open axes, in the order of `inputs`.
        bounds: Name of an open axis -> its smallest and largest size.

    Raises:
        ExportError: As `torch_capture.capture`.
    """
    program = torch_capture.capture(model, inputs, axes, bounds)
    with torch_capture.quiet(), torch.no_grad():
        steps: dict[Any, Any] = {cell.step_operator: partial(_step, cell) for cell in CELLS.values() if cell.is_native}
        sequences = [operator for cell in CELLS.values() for operator in cell.sequence_operators]
        program = decomposition_start.decomposed(program, steps | get_decompositions(sequences))
        module = program.module(check_guards=False)
        assert isinstance(module, fx.GraphModule)
        rewrite(module)
    return torch_capture.capture(module, inputs, axes, bounds)


def recurrent_cells(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Cells that a traced sequence has: positions x layers x directions of all recurrent layers, in one run.

    Raises:
        ExportError: A recurrent layer is given a packed sequence.
    """
    cells = 0

    def count(module: Any, inputs: Any, output: Any) -> None:
        nonlocal cells
        if isinstance(inputs[0], PackedSequence):
            raise ExportError(
                "the model packs its sequences, which a file of one length cannot follow",
                hint="`form: step` takes sequences of any length; `format: onnx` and `ort` take packed ones",
            )
        if is_step_module(module):
            cells += 1
        else:
            sequence = inputs[0]
            steps = sequence.shape[1 if module.batch_first and sequence.dim() == 3 else 0]
            cells += steps * module.num_layers * directions(module)

    classes: tuple[type[nn.Module], ...] = (*RECURRENT, LowRankRecurrent)
    handles = (part.register_forward_hook(count) for part in model.modules() if isinstance(part, classes))
    with hooked(handles), torch.no_grad(), plain_attention():
        model(*inputs)
    return cells


def _step(cell: Cell, x: Tensor, hx: Any, *parameters: Tensor | None) -> Any:
    """PyTorch's function for one step of a cell, which takes the parameters in their order, as plain operations."""
    names = (parameter.name for parameter in cell.parameters)
    weights = {name: tensor for name, tensor in zip(names, parameters, strict=False) if tensor is not None}
    return cell.pack(cell.step(x, cell.unpack(hx), weights))
