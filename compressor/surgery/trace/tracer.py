"""Follows every hidden unit and feature through a model, element by element.

One forward pass on a small example is watched below autograd, where everything is a few dozen tensor operations.
Elements carry labels (see `state`), which views and in-place writes need no rule for. Operations that make new storage
have a rule each; one without a rule pins what it touches, with the place in the user's code, so that nothing is
followed wrongly.

Recurrent modules are one rule: their units are atoms, tied to the gate rows of their weights, to their outputs, to
`h_n` and `c_n`, and to the initial states that they are given.

Why not Torch-Pruning's dependency graph (1.6.1), which is the field's usual base: it follows autograd's edges without
positions of axes, has no rule for recurrent modules that is right, and does not see `h_n` and `c_n`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compressor.nn.attention.plain import plain_attention
from compressor.nn.operations import Operations
from compressor.surgery.trace.convolutions import CONVOLUTIONS
from compressor.surgery.trace.elementwise import (
    CONSTANTS,
    ELEMENTWISE,
    LIKE,
    MOVES,
    POINTWISE,
    SAME_SHAPE,
    move,
    pointwise,
    unknown,
)
from compressor.surgery.trace.entering import carry_on
from compressor.surgery.trace.module_rules import watched_modules
from compressor.surgery.trace.parts import follow_parts
from compressor.surgery.trace.products import PRODUCTS
from compressor.surgery.trace.reductions import COMBINING, NORMALISING, RANKED, REDUCTIONS, ask, normalise, rank, reduce
from compressor.surgery.trace.resampling import RESAMPLING, SHUFFLES, resample
from compressor.surgery.trace.seams import pin_unused_results, watched_seams
from compressor.surgery.trace.state import Trace

if TYPE_CHECKING:
    from collections.abc import Sequence

aten = torch.ops.aten
_REINTERPRETING = {aten.view_as_complex.default, aten.view_as_real.default, aten.view.dtype}
"""Views of the same storage as elements of another type."""
_RULES: dict[Any, Any] = PRODUCTS | CONVOLUTIONS | ELEMENTWISE | COMBINING | SHUFFLES


def trace(model: nn.Module, inputs: Sequence[Tensor], *, whole_blocks: bool = False) -> Trace:
    """Watch `model(*inputs)` and pin what leaves the model as an output, states that enter it too excepted.

    Likewise what leaves a module that becomes a file of its own, unless a layer of the model takes it in.

    Args:
        model: A copy on the CPU in evaluation mode; its recurrent modules' `forward` is wrapped meanwhile.
        inputs: A small example.
        whole_blocks: Of features that a view takes apart into blocks whole blocks go, see `parts`.
    """
    inputs = [tensor.clone() for tensor in inputs]
    seen = Trace(model, inputs, whole_blocks=whole_blocks)
    with torch.no_grad(), watched_modules(seen), watched_seams(seen), plain_attention(), _Watch(seen):
        outputs = model(*inputs)
    shifted = seen.atoms.roots(seen.shifted_atoms())
    for ids, reason in seen.summed:
        seen.atoms.pin(ids[np.isin(seen.atoms.roots(ids), shifted[shifted != 0])], reason)
    for index, output in enumerate(part for part in tree_flatten(outputs)[0] if isinstance(part, Tensor)):
        labels = seen.read(output)
        if labels is not None and not seen.leaves_as_state(index, labels):
            seen.atoms.pin(labels.numpy(), f"it is part of the model's output {index}, whose size would change")
    pin_unused_results(seen)
    return seen


class _Watch(Operations):
    """Follows every operation."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.trace.paused:
            return func(*args, **kwargs)
        before = self._argument_labels(func, args, kwargs)
        result = func(*args, **kwargs)
        with self.trace.pause():
            self._follow(func, args, kwargs, before, result)
        return result

    def _argument_labels(self, func: Any, args: Any, kwargs: Any) -> list[Tensor | None]:
        """Labels of the tensor arguments, copied before an in-place operation changes them."""
        tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
        self.trace.alive.append(tensors)
        with self.trace.pause():
            labels = [self.trace.read(tensor) for tensor in tensors]
            if func._schema.is_mutable:
                labels = [None if label is None else label.clone() for label in labels]
        return labels

    def _follow(self, func: Any, args: Any, kwargs: Any, before: list[Tensor | None], result: Any) -> None:
        tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
        outputs = [part for part in tree_flatten(result)[0] if isinstance(part, Tensor)]
        self.trace.alive.append(outputs)
        view = self._is_view(tensors, outputs) and not func._schema.is_mutable
        if not view:
            names = [self.trace.parameter_name(tensor) for tensor in tensors]
            self.trace.feedback.follow(tensors, names, before, outputs)
            carry_on(self.trace, func, args, tensors, outputs)
        self._apply_rule(func, args, kwargs, before, tensors, outputs, view)
        if not view:
            self._keep_constants(func, tensors, outputs)

    def _apply_rule(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        before: list[Tensor | None],
        tensors: list[Tensor],
        outputs: list[Tensor],
        view: bool,
    ) -> None:
        rule = _RULES.get(func)
        if self._is_settled(func, tensors, before, outputs):
            pass
        elif rule is not None:
            rule(self.trace, args, kwargs, outputs)
        elif func in MOVES:
            move(self.trace, func, args, kwargs, outputs)
        elif func in SAME_SHAPE or func in LIKE:
            self.trace.write(outputs[0], before[0])
        elif func in NORMALISING:
            normalise(self.trace, before[0], [args[1]], outputs[0], func)
        elif func in REDUCTIONS:
            reduce(self.trace, func, before[0], args, outputs)
        elif func in RANKED:
            rank(self.trace, func, before[0], args, kwargs, outputs)
        elif func in RESAMPLING:
            resample(self.trace, func, before[0], outputs[0])
        elif view and func in _REINTERPRETING:
            unknown(self.trace, func, tensors, before)
        elif view:
            follow_parts(self.trace, func, args, next(iter(before), None), outputs)
        elif torch.Tag.pointwise in func.tags or func in POINTWISE:
            pointwise(self.trace, func, tensors, before, outputs)
        else:
            unknown(self.trace, func, tensors, before)

    def _is_settled(self, func: Any, tensors: list[Tensor], before: list[Tensor | None], outputs: list[Tensor]) -> bool:
        """Whether an operation makes a constant, a table, or a parameter in another type: no rule is needed then."""
        if func in CONSTANTS or ask(self.trace, func, tensors, before, outputs):
            return True
        if func is aten._to_copy.default and self.trace.is_cast(outputs[0], tensors[0]):
            return True
        return func in SAME_SHAPE and self.trace.tables.takes(tensors, outputs)

    def _keep_constants(self, func: Any, tensors: list[Tensor], outputs: list[Tensor]) -> None:
        """A constant stays one in arithmetic with constants, and is none any more once something else is written in."""
        constants, elementwise = self.trace.constants, torch.Tag.pointwise in func.tags
        made = func in CONSTANTS or (bool(tensors) and all(tensor in constants for tensor in tensors))
        known = func in CONSTANTS or func in MOVES or func in LIKE or func is aten._to_copy.default
        mixed = elementwise and not made and tensors and outputs
        even = constants.even_axes(tensors, outputs[0]) if mixed else frozenset()
        constants.note(outputs, whole=made and (known or elementwise), even=even)

    def _is_view(self, tensors: list[Tensor], outputs: list[Tensor]) -> bool:
        storages = {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
        return bool(outputs) and all(o.untyped_storage().data_ptr() in storages for o in outputs if o.numel())
