"""The original with removed units silent: what a smaller model must give."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from compressor.nn.hooks import hooked
from compressor.nn.seams import changed_call
from compressor.surgery.equivalence import forward
from compressor.surgery.units.planning import Plan, lost_features
from compressor.surgery.units.resize import tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from compressor.surgery.trace.edges import Edges


@contextmanager
def silenced(plan: Plan) -> Iterator[None]:
    """The removed units are 0 at every step while this lasts: the rows that make them are 0, all else as before.

    With zero rows and biases, an RNN gives tanh(0) = relu(0) = 0; a GRU n = 0, so h = z * h' stays 0; an LSTM g = 0, so
    c = f * c' stays 0 and h = o * tanh(0) = 0. That uses nothing of what the trace found out about consumers, so it
    tells when that was wrong. What a function between makes of 0 reaches them: see `constants`. Only behind a layer
    normalisation, which makes something of 0 that depends on all other units, the units are 0 once more.
    """
    saved = []
    hooks: list[RemovableHandle] = [
        plan.model.get_submodule(name).register_forward_hook(_zeroed_at(removed, norm.axis))
        for name, norm in plan.trace.norms.items()
        if (removed := lost_features(plan.trace, name, plan.choice.removed)).any()
    ]
    hooks += [
        plan.model.get_submodule(edges.module).register_forward_pre_hook(_silenced_call(edges), with_kwargs=True)
        for edges in plan.seams
    ]
    with hooked(hooks):
        try:
            for (name, axis), mask in plan.kept.items():
                if plan.trace.atoms.roles[name, axis] != "in":
                    tensor, rows = tensor_of(plan.model, name).detach(), (~mask).nonzero().flatten()
                    saved.append((tensor, axis, rows, tensor.index_select(axis, rows)))
                    tensor.index_fill_(axis, rows, 0.0)
            yield
        finally:
            # In reverse order: an element may be covered twice, by rows and by columns.
            for tensor, axis, rows, values in reversed(saved):
                tensor.index_copy_(axis, rows, values)


def forward_silenced(plan: Plan, example: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs at states whose removed units are 0, the kept units of outgoing states only."""
    outputs = forward(plan.model, plan.edges.silence(example), "silenced")
    for cut in plan.edges.outputs:
        outputs[cut.index] = cut(outputs[cut.index])
    return outputs


def _zeroed_at(positions: NDArray[np.bool_], axis: int) -> Callable[..., Tensor]:
    """A forward hook: 0 at these positions of an axis."""
    removed = torch.from_numpy(positions.nonzero()[0])

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.index_fill(axis, removed, 0.0)

    return hook


def _silenced_call(edges: Edges) -> Callable[..., Any]:
    """A forward pre-hook: the removed units of the states that a module is given are 0."""
    return lambda module, args, kwargs: changed_call(module, args, kwargs, edges.silence)
