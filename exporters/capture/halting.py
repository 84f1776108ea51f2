"""Makes `HaltingLayer` come out as one ONNX `Loop`, whose body is the layer, its change and the test.

A layer emits a placeholder while its model is traced, since an operator with a body cannot be emitted then. The body is
traced as a module of its own; `exporters.loops.expand_halting` puts both together.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import ExportError
from compressor.nn.forwards import replaced_forwards
from compressor.nn.halting import HaltingLayer, halting_layers
from exporters.loops.description import size_hint

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAIN = "compressor"
PLACEHOLDER = "HaltingLoop"
_PREPARED = "_loop_of_file"
"""Attribute of a layer that was prepared."""


@dataclass
class Calls:
    """How a layer was called while its model was traced; an object of its own, which a tracer leaves as it is."""

    name: str
    spec: pytree.TreeSpec | None = None
    constants: list[Any] = field(default_factory=list)
    """The leaves of the further arguments; None instead of tensors."""
    tensors: list[bool] = field(default_factory=list)
    """Which of these leaves are tensors."""
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    """In the trace, of x, who goes on, and the tensors among the further arguments."""
    open_axes: list[tuple[int, ...]] = field(default_factory=list)
    """Which axes of these have any size. Plain numbers: what a tracer gives as a size cannot be copied."""
    dtypes: list[torch.dtype] = field(default_factory=list)
    """Of these."""
    wrapped: bool = False


def prepare(model: nn.Module) -> None:
    """Let every halting layer of a model emit a loop while the model is traced; changes `model`."""
    for name, module in halting_layers(model).items():
        object.__setattr__(module, _PREPARED, Calls(name))


@contextmanager
def loops() -> Iterator[None]:
    """Within the block, prepared layers emit placeholders."""
    with replaced_forwards({HaltingLayer: _dispatcher}):
        yield


def refuse_halting(model: nn.Module, title: str) -> None:
    """Raise `ExportError` if a model has a loop that ends early, for a format whose runtime does not get it."""
    for name, module in halting_layers(model).items():
        raise ExportError(
            f"`{name}` ends its loop as soon as a step changes less than {module.threshold:g}, and {title} is not "
            "given loops with such a condition",
            hint="use `format: onnx` or `ort`; or leave `exit` out of `tie_layers`, which then makes all steps",
        )


def _dispatcher(original: Any) -> Any:
    def forward(self: HaltingLayer, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        calls = vars(self).get(_PREPARED)
        return original(self, x, *args, **kwargs) if calls is None else _emitted(self, calls, x, args, kwargs)

    return forward


def _emitted(module: HaltingLayer, calls: Calls, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What stands for the loop, and a note of how it was called."""
    leaves, calls.spec = pytree.tree_flatten((args, kwargs))
    moving = [leaf for leaf in leaves if isinstance(leaf, (torch.SymInt, torch.SymFloat, torch.SymBool))]
    if moving:
        raise ExportError(
            f"`{calls.name}` is given a size as a further argument, which the body of a loop cannot take",
            hint="let the layer read the size off its tensors, or leave `exit` out of `tie_layers`",
        )
    calls.tensors = [isinstance(leaf, Tensor) for leaf in leaves]
    calls.constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    tensors = [x, module.all_live(x), *(leaf for leaf in leaves if isinstance(leaf, Tensor))]
    calls.shapes = [tuple(map(size_hint, part.shape)) for part in tensors]
    calls.open_axes = [
        tuple(axis for axis, size in enumerate(part.shape) if not isinstance(size, int)) for part in tensors
    ]
    calls.dtypes = [part.dtype for part in tensors]
    calls.wrapped = isinstance(module.layer(x, *args, **kwargs), tuple)
    settled, _ = torch.onnx.ops.symbolic_multi_out(
        f"{DOMAIN}::{PLACEHOLDER}",
        tensors,
        {"layer": calls.name, "steps": module.steps},
        dtypes=(x.dtype, torch.bool),
        shapes=tuple(tuple(part.shape) for part in tensors[:2]),
        version=1,
    )
    return (settled,) if calls.wrapped else settled


class LoopBody(nn.Module):
    """x, who goes on, and further tensors in; whether anybody goes on, the new x and who goes on out."""

    def __init__(self, layer: HaltingLayer) -> None:
        """Of a layer that was traced as a part of its model."""
        super().__init__()
        calls: Calls = vars(layer)[_PREPARED]
        self.layer = layer
        self._calls = (calls,)  # in a tuple: a tracer puts the attributes of a module back
        self.inputs = [torch.zeros(shape, dtype=kind) for shape, kind in zip(calls.shapes, calls.dtypes, strict=True)]
        """An example."""
        self.axes = {
            f"input_{number}": {axis: f"axis_{number}_{axis}" for axis in axes}
            for number, axes in enumerate(calls.open_axes)
        }
        """Name of an input -> its open axes."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One step."""
        x, live, *tensors = inputs
        calls = self._calls[0]
        given = iter(tensors)
        places = zip(calls.constants, calls.tensors, strict=True)
        leaves = [next(given) if tensor else constant for constant, tensor in places]
        assert calls.spec is not None
        args, kwargs = pytree.tree_unflatten(leaves, calls.spec)
        settled, goes_on, _ = self.layer.step(x, live, args, kwargs)
        return goes_on.any().clone(), settled.clone(), goes_on.clone()
