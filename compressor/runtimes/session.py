"""Sessions of ONNX Runtime: the one way in which this package opens them.

Scripts that run without this package (those of `workers`, `load_script`, `remote_script`, and the example beside a step
file) open their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

PROVIDER = "CPUExecutionProvider"
_FATAL_ONLY = 4
"""Errors come as exceptions; as log lines, names in a file would reach the terminal as they are."""
_LEVELS = {"all": "ORT_ENABLE_ALL", "basic": "ORT_ENABLE_BASIC", "none": "ORT_DISABLE_ALL"}


def open_session(
    model: Path | bytes,
    *,
    threads: int = 1,
    optimization: Literal["all", "basic", "none"] = "all",
    optimized: Path | None = None,
    profile: Path | None = None,
    calibrated_in_float: bool = False,
    fold: bool = True,
) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU.

    Args:
        model: A file, or its content.
        threads: Threads of an operator. They sleep while they wait: a spinning thread would take time from another
            session in an interleaved comparison.
        optimization: `none` runs the graph as it is written; `basic` folds constants and keeps standard operators;
            `all` also fuses nodes.
        optimized: Where the optimized graph is written.
        profile: Time each node; `end_profiling()` then writes a file whose path begins so, and returns that path.
        calibrated_in_float: Operators between `DequantizeLinear` and `QuantizeLinear` compute in float, as the graph is
            written, instead of in integers.
        fold: Constants are computed at load. ONNX Runtime then holds all numbers on the way to them until the last is
            known: of weights that are unpacked, several times the model. Without it every run computes them, and
            weights are multiplied as they lie in the file.

    Raises:
        Exception: ONNX Runtime cannot load the model; its exceptions have no common base.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimization])
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if calibrated_in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not fold:  # a second copy of each weight, in another order, pays in many runs
        options.add_session_config_entry("session.disable_prepacking", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=[PROVIDER],
        disabled_optimizers=[] if fold else ["ConstantFolding"],
    )


def first_line(error: Exception) -> str:
    """What an exception of ONNX Runtime says, without the details that follow."""
    return str(error).strip().split("\n", 1)[0]
