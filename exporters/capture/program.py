"""From a PyTorch model to an ONNX graph: one path, `torch.export` without Dynamo and then `torch.onnx`."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import re
import sys
import warnings
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from compressor.errors import CompressorError, ExportError
from compressor.nn.attention.plain import plain_attention
from exporters.capture import decomposition, function_library, halting, open_length, promotion
from exporters.capture.native_layers import native_nodes
from exporters.capture.packed_sequence import traceable_packing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir
    import torch
    from torch import Tensor, nn

    Axes = Mapping[str, Mapping[int, str]]

_TALKATIVE_LOGGERS = ("torch.onnx", "torch.fx", "torch.export", "onnxscript", "onnx_ir")
_FIXED_AXIS = re.compile(r"L\['(\w+)'\](?:\[(\d+)\])?\.size\(\)\[(\d+)\] as dynamic but .* constant \((\d+)\)")
_USER_CODE = re.compile(r'File "[^"]*", line \d+, in \S+\s+(\S.*)')
_MISSING_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")
_LONGEST_CAUSE = 300
_NO_BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType({})


def capture(
    model: nn.Module, inputs: Sequence[Tensor], axes: Axes, bounds: Mapping[str, tuple[int, int]] = _NO_BOUNDS
) -> torch.export.ExportedProgram:
    """Trace `model`.

    Args:
        model: The model in evaluation mode, on the CPU, prepared for native nodes.
        inputs: Its arguments, each dynamic axis at least 2 long.
        axes: Input name -> {axis: name} of the dynamic axes, in the order of `inputs`.
        bounds: Name of an axis -> its smallest and largest size, if it has such.

    Raises:
        ExportError: The model cannot be traced, or its code fixes a dynamic axis to the size in `inputs`.
    """
    import torch

    arguments = tuple(part.clone() for part in inputs)  # shapes are found by identity: no two may be one object
    shapes = torch.export.ShapesCollection()
    for argument, names in zip(arguments, axes.values(), strict=True):
        shapes[argument] = {axis: _dimension(*bounds.get(name, ())) for axis, name in names.items()}
    try:
        with (
            quiet(),
            plain_attention(),
            native_nodes(),
            halting.loops(),
            traceable_packing(),
            open_length.lean(axes),
            torch.no_grad(),
        ):
            return torch.export.export(model, arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise _tracing_error(error, model, axes) from error


def _dimension(smallest: int | None = None, largest: int | None = None) -> Any:
    import torch

    return torch.export.Dim.DYNAMIC(min=smallest, max=largest)


def translate(program: torch.export.ExportedProgram, opset: int) -> onnx_ir.Model:
    """The ONNX graph of a traced model, not optimized yet; the program may be changed and cannot be used again.

    Raises:
        ExportError: An operator has no ONNX form, or the graph cannot be written in `opset`.
    """
    import torch

    _refuse_bfloat16(program)
    try:
        with quiet(), function_library.kept(), decomposition.left_out(), promotion.by_known_types():
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        raise _translation_error(error, opset) from error
    assert onnx_program is not None
    reached = onnx_program.model.opset_imports.get("")
    if reached != opset:  # the converter of PyTorch logs this at most
        raise ExportError(
            f"the model cannot be written in opset {opset}: its operators need opset {reached}",
            hint=f"set opset to {reached}",
        )
    return onnx_program.model


def _refuse_bfloat16(program: torch.export.ExportedProgram) -> None:
    """ONNX Runtime has no products in bfloat16 on a CPU, which `torch.autocast` in `forward` computes in."""
    import torch

    given = {tensor.dtype for tensor in program.state_dict.values()}
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    values = (node.meta.get("val") for graph in graphs for node in graph.nodes)
    made = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    if torch.bfloat16 in made - given:
        raise ExportError(
            "the model's code computes in bfloat16, as `torch.autocast` in `forward` does, and ONNX Runtime has no "
            "products in bfloat16 on a CPU",
            hint="switch it off while the model is exported, as `torch.autocast(..., enabled=self.training)` does: the "
            "file computes in float32 then",
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own chatter off the terminal; what the model prints is shown when the block ends well."""
    # The parents speak for all below them but those with a level of their own. To set a level takes a millisecond.
    levels_of_their_own = [
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith(_TALKATIVE_LOGGERS) and isinstance(logger, logging.Logger) and logger.level != logging.NOTSET
    ]
    loggers = [logging.getLogger(name) for name in dict.fromkeys((*_TALKATIVE_LOGGERS, *levels_of_their_own))]
    levels = [logger.level for logger in loggers]
    printed = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stderr(printed):
            warnings.filterwarnings("ignore", message="The tensor attributes? .* assigned during export")
            warnings.filterwarnings("ignore", module=r"(torch|onnxscript|onnx_ir|copyreg)(\.|$)")
            yield
    finally:
        for logger, level in reversed(list(zip(loggers, levels, strict=True))):
            logger.setLevel(level)
    sys.stderr.write(printed.getvalue())


def _tracing_error(error: Exception, model: nn.Module, axes: Axes) -> CompressorError:
    import torch

    text = str(error)
    if isinstance(error, CompressorError):
        return error
    scripted = [name for name, module in model.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    if scripted:
        return ExportError(
            f"{f'`{scripted[0]}`' if scripted[0] else 'the model'} is compiled by `torch.jit.script`, which hides its "
            f"code: {_first_cause(error)}",
            hint="build the model from its Python code, without `torch.jit.script`, and load the same weights",
        )
    fixed = _FIXED_AXIS.search(text)
    if fixed is not None:
        name, axis = _dynamic_axis(model, axes, fixed[1], int(fixed[2] or 0), int(fixed[3]))
        return ExportError(
            f"the model's code fixes axis `{axis}` of input `{name}` to the {fixed[4]} of the example",
            hint=f"a Python loop over `{axis}` (GRUCell, LSTMCell), `len(x)` (write `x.shape[0]`), `.tolist()` or a "
            "reshape to a fixed size does so; "
            f"use nn.RNN, nn.GRU or nn.LSTM, or leave `{axis}` out of the task's `inputs`",
        )
    if "data-dependent" in text:
        lines = _USER_CODE.findall(text)
        where = f" at `{lines[-1].strip()}`" if lines else ""
        return ExportError(
            f"the model's code depends on the values of a tensor{where}",
            hint="one graph serves all inputs: use torch.where or masks, and give pad_packed_sequence a total_length",
        )
    return ExportError(
        f"the model cannot be traced: {_first_cause(error)}",
        hint="`forward` must be made of tensor operations; see torch.export for what it can follow",
    )


def _dynamic_axis(model: nn.Module, axes: Axes, parameter: str, place: int, axis: int) -> tuple[str, str]:
    """Names of the input and of its axis, from the name of `forward`'s parameter (and the place in `*args`)."""
    parameters = list(inspect.signature(model.forward).parameters)
    index = parameters.index(parameter) + place if parameter in parameters else 0
    name = list(axes)[min(index, len(axes) - 1)]
    return name, axes[name].get(axis, str(axis))


def _translation_error(error: Exception, opset: int) -> ExportError:
    chain = list(_causes(error))
    missing = [found[1] for cause in chain if (found := _MISSING_OPERATOR.search(str(cause)))]
    if missing:
        return ExportError(
            f"`{missing[-1].removeprefix('aten.')}` has no ONNX form in opset {opset}",
            hint="write this part of the model with other operations, or try a higher opset",
        )
    return ExportError(
        f"the traced model cannot be written as ONNX: {_first_cause(error)}",
        hint="write that part of the model with other operations or shapes, or try another opset",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _first_cause(error: BaseException) -> str:
    """One line about the error at the bottom of the chain; the long text stays in `__cause__`."""
    first = list(_causes(error))[-1]
    line = next((line.strip() for line in str(first).splitlines() if line.strip()), "")
    return f"{type(first).__name__}: {line}"[:_LONGEST_CAUSE]
