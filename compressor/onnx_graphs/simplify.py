"""Infers shapes, folds what is constant and checks a graph; lowers its opset."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from compressor.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx
    import onnx_ir as ir

LOWERED_OPSET = 18
_NO_LIMIT = 2**31 - 1
_TALKATIVE_LOGGERS = ("onnxscript", "onnx_ir")


def simplify(model: ir.Model) -> None:
    """Infer shapes, fold what is constant, drop what nothing uses, in place."""
    import onnx_ir.passes.common as passes
    from onnxscript import optimizer

    with _quiet():
        optimizer.optimize_ir(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT, onnx_shape_inference=True)
        for graph_pass in (
            passes.CommonSubexpressionEliminationPass(),
            passes.DeduplicateInitializersPass(size_limit=_NO_LIMIT),
            passes.RemoveUnusedNodesPass(),
            passes.ShapeInferencePass(),
        ):
            graph_pass(model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _TALKATIVE_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def check(proto: onnx.ModelProto) -> None:
    """Run the ONNX checker over a changed graph.

    Raises:
        ExportError: It is not valid ONNX.
    """
    import onnx

    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise ExportError(
            f"the changed graph is not valid ONNX: {first}", hint="check without --fix, and change the model instead"
        ) from error


def lowered(proto: onnx.ModelProto) -> onnx.ModelProto | str:
    """The graph in opset 18, or why ONNX's converter cannot write it."""
    import onnx

    try:
        converted: onnx.ModelProto = onnx.version_converter.convert_version(proto, LOWERED_OPSET)
    except Exception as error:  # the converter raises RuntimeError and others of its own
        return f"onnx cannot convert it: {str(error).strip().splitlines()[0]}"
    return converted
