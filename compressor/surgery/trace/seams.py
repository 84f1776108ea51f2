"""What passes between the modules of a model that become files of their own, while the model is traced."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compressor.nn.hooks import hooked
from compressor.nn.seams import marked, tensors_of_call
from compressor.surgery.trace.labels import varies
from compressor.surgery.trace.state import Crossing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace


@contextmanager
def watched_seams(trace: Trace) -> Iterator[None]:
    """Within the block, tensors that enter and leave a marked module are noted.

    One that carries no units when it enters may be a state that the model's own code made; it is labelled if a
    recurrent layer takes it as its initial state.
    """
    handles = []
    for name, module in marked(trace.model).items():
        handles.append(module.register_forward_pre_hook(partial(_enter, trace), with_kwargs=True))
        handles.append(module.register_forward_hook(partial(_leave, trace, name), with_kwargs=True))
    with hooked(handles):
        yield


def _enter(trace: Trace, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    with trace.pause():
        for tensor in tensors_of_call(module, args, kwargs):
            trace.alive.append(tensor)
            if trace.read(tensor) is None:
                trace.may_be_state(tensor)


def _leave(
    trace: Trace, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
) -> None:
    with trace.pause():
        results = [part for part in tree_leaves(result) if isinstance(part, Tensor)]
        trace.alive.append(results)
        for enters, tensors in ((True, tensors_of_call(module, args, kwargs)), (False, results)):
            for index, tensor in enumerate(tensors):
                labels = trace.read(tensor)
                if labels is not None:
                    trace.crossings.append(Crossing(name, enters, index, labels.clone()))


def pin_unused_results(trace: Trace) -> None:
    """What a module gives and no layer takes in, such as the scores of a second head, keeps its size."""
    taken = [trace.atoms.roots(ids) for key, ids in trace.atoms.axes.items() if trace.atoms.roles[key] == "in"]
    inside = np.unique(np.concatenate([np.zeros(1, np.int64), *taken]))
    for crossing in trace.crossings:
        if not crossing.enters:
            labels = crossing.labels.numpy()
            alone = labels[~np.isin(trace.atoms.roots(labels), inside)]
            trace.atoms.pin(alone, f"it is part of output {crossing.index} of `{crossing.module}`, which is a file")


def axis_of_units(labels: Tensor) -> tuple[int, Ids] | None:
    """The one axis along which a tensor carries units, and their atoms (H,); None if there are several.

    The first axis may be one of layers, each with units of its own; the atoms are (L, H) then.
    """
    varying = [axis for axis in range(labels.dim()) if varies(labels, axis)]
    layers = varying[:1] if len(varying) == 2 and varying[0] == 0 else []
    if len(varying) != 1 + len(layers):
        return None
    axis = varying[-1]
    rows = labels.movedim(axis, -1).reshape(len(labels) if layers else 1, -1, labels.size(axis))[:, 0].numpy()
    return axis, rows if layers else rows[0]
