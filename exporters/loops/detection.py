"""Whether a model computes in a Python loop over time, found by running it, without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from compressor.nn.attention.plain import plain_attention
from exporters.capture.native_layers import native_nodes
from exporters.capture.packed_sequence import traceable_packing

if TYPE_CHECKING:
    from torch import nn

    from compressor.task.contract import Task

_BATCH = 3


class _Counter(TorchFunctionMode):
    """Counts the calls into PyTorch."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def steps_by_length(model: nn.Module, task: Task, lengths: tuple[int, int]) -> bool:
    """Whether the model calls PyTorch more often the longer its input is.

    A trace of such a model fixes the length: the calls of another length are not in it.

    Args:
        model: In evaluation mode, on the CPU, prepared for native nodes.
        task: Gives the examples.
        lengths: Two lengths, the shorter one first.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            few, more = (_calls(model, task, length) for length in lengths)
    except Exception:  # the trace says what is wrong with the model
        return False
    return more > few


def _calls(model: nn.Module, task: Task, length: int) -> int:
    inputs, counter = task.example(_BATCH, length), _Counter()
    with torch.no_grad(), plain_attention(), native_nodes(), traceable_packing(), counter:
        model(*inputs)
    return counter.calls
