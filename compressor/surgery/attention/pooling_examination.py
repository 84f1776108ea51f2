"""How a model calls a third-party pooling: found out by running it.

What the arguments beside the sequence mean is tried out: a mask is what decides whether changed steps change the
output.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from compressor.errors import SurgeryError
from compressor.nn.attention.pooling_call import MaskKind, PoolingCall
from compressor.surgery.attention.pooling_calls import (
    BATCHES,
    calls_on_example,
    described,
    find_sequence,
    only_call,
    output_size,
    positional_arguments,
    same_tensor,
)
from compressor.surgery.attention.pooling_masks import mask_hypotheses, short_mask
from compressor.surgery.refit.calibration import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.surgery.attention.pooling_calls import SeenCall

_SAME, _OTHER = 1e-4, 1e-3
"""Largest difference, relative to the largest output, up to which outputs are the same and above which they are not."""
_WEIGHTED = 1e-3
"""Largest relative distance of a weighted sum of steps from the span of the steps."""


@dataclass(frozen=True)
class Pooling:
    """What was found out about a pooling."""

    call: PoolingCall
    width: int
    """D."""
    output_size: int
    """F."""
    sums: int | None
    """r if the output is r weighted sums of the steps, one after the other (F = r * D); None if it is not."""
    ignored: tuple[str, ...]
    """Arguments that make no difference."""


def examine(
    model: nn.Module, name: str, example: Callable[[int, int], tuple[Tensor, ...]], lengths: tuple[int, int]
) -> Pooling:
    """Find out how the model calls the module called `name`, and what that module does.

    Args:
        model: Its mode stays as it is.
        name: The module.
        example: (batch size, length) -> inputs of the model.
        lengths: A typical length and another one; the same if the model takes one length only.

    Raises:
        SurgeryError: It is not called just once, gives no (B, F), is not given one sequence, or depends on something
            that is neither the sequence nor a mask.
    """
    module = model.get_submodule(name)
    with evaluating(model), torch.random.fork_rng(devices=[]):
        small, other = BATCHES
        runs = [(small, lengths[0]), (other, lengths[0])] + ([(small, lengths[1])] if lengths[0] != lengths[1] else [])
        calls = [only_call(calls_on_example(model, name, example(*run), run), name) for run in runs]
        parameters = positional_arguments(module, name)
        size = output_size(name, calls, [batch for batch, _ in runs])
        sequence, axes = find_sequence(name, calls)
        call = PoolingCall(parameters, sequence, axes)
        probe = _Probe(module, name, call, max(calls[::2], key=lambda seen: seen.arguments[sequence].size(axes[1])))
        call, ignored = probe.find_mask()
        if call.mask_kind is None and len(calls) == 3 and probe.passes_over_zeros():
            call = PoolingCall(parameters, sequence, axes, None, "zeros")
        width = probe.sequence.size(2)
        return Pooling(call, width, size, probe.sums(call, free=len(calls) == 3), ignored)


class _Probe:
    """One call of the module that is repeated with changed arguments."""

    def __init__(self, module: nn.Module, name: str, call: PoolingCall, seen: SeenCall) -> None:
        self._module = module
        self._name = name
        self._call = call
        self._arguments = seen.arguments
        self._random = torch.Generator().manual_seed(0)
        self.sequence: Tensor = seen.arguments[call.sequence].permute(call.axes)  # (B, T, D)
        self._copies = [
            key for key, value in seen.arguments.items() if same_tensor(value, seen.arguments[call.sequence])
        ]
        self._output = self._run()
        if not self._same(self._run(), self._output):
            raise SurgeryError(
                f"`{name}` gives different outputs for the same inputs, so what it does cannot be found out",
                hint="draw no random numbers in evaluation mode",
            )

    def find_mask(self) -> tuple[PoolingCall, tuple[str, ...]]:
        """The call with the argument that says which steps are real, and the arguments that make no difference."""
        masks: list[tuple[str, MaskKind]] = []
        ignored = []
        for key, value in self._arguments.items():
            if key in self._copies or not any(isinstance(leaf, Tensor) for leaf in tree_leaves(value)):
                continue
            kind = self._mask_kind(key, value) if isinstance(value, Tensor) else None
            if kind is not None:
                masks.append((key, kind))
            elif isinstance(value, Tensor) and not self._matters(key, value):
                ignored.append(key)
            else:
                raise SurgeryError(
                    f"the output of `{self._name}` depends on `{key}` ({described(value)}), which is neither the "
                    "sequence nor a mask of its steps whose meaning could be found out",
                    hint="a mask has to be (B, T), whatever the order of the sequence's axes, or lengths (B,); masked "
                    "steps must make no difference at all",
                )
        if len(masks) > 1:
            names = " and ".join(f"`{key}`" for key, _ in masks)
            raise SurgeryError(f"`{self._name}` is given several masks, {names}", hint="give it one of them")
        if not masks:
            return self._call, tuple(ignored)
        call = self._call
        return PoolingCall(call.arguments, call.sequence, call.axes, *masks[0]), tuple(ignored)

    def passes_over_zeros(self) -> bool:
        """Whether steps of zeros behind the sequence make no difference, while other steps do."""
        behind = torch.zeros_like(self.sequence[:, :1])
        longer = self._run(torch.cat([self.sequence, behind], 1))
        changed = self._run(torch.cat([self.sequence, self._noise(behind) * self._scale()], 1))
        return self._same(longer, self._output) and self._differs(changed, self._output)

    def sums(self, call: PoolingCall, *, free: bool) -> int | None:
        """Give r if the output is r weighted sums of the steps; tried on few steps, which do not span all features.

        Args:
            call: How the module is called, with the mask.
            free: The number of steps may change.
        """
        steps, width = self.sequence.size(1), self.sequence.size(2)
        fewer = min(steps, max(1, width // 2)) if free else steps
        if self._output.size(1) % width or fewer >= width:
            return None
        sequence = self.sequence[:, :fewer]
        changed = {}
        if call.mask is not None and call.mask_kind is not None:
            changed[call.mask] = short_mask(self._arguments[call.mask], call.mask_kind, self.sequence.shape, fewer)
        output = self._run(sequence, changed)
        if output is None:
            return None
        basis, _ = torch.linalg.qr(sequence.transpose(1, 2).double())  # (B, D, T)
        rows = output.double().unflatten(1, (-1, width))  # (B, r, D)
        outside = rows - (rows @ basis) @ basis.transpose(1, 2)
        return rows.size(1) if bool(outside.norm() <= _WEIGHTED * rows.norm()) else None

    # --- trying out --------------------------------------------------------------------------------------------------

    def _mask_kind(self, key: str, value: Tensor) -> MaskKind | None:
        """What the argument says about steps; None if it is not a mask of them."""
        batch, steps, _ = self.sequence.shape
        if steps == 1:
            return None
        kept = steps - max(1, steps // 3)
        changed = self.sequence.clone()
        changed[:, kept:] += self._noise(changed[:, kept:]) * self._scale()
        for kind, every, some in mask_hypotheses(value, batch, steps, kept):
            outputs = [
                self._run(sequence, {key: mask}) for mask in (some, every) for sequence in (self.sequence, changed)
            ]
            if self._same(outputs[0], outputs[1]) and self._differs(outputs[2], outputs[3]):
                return kind
        return None

    def _matters(self, key: str, value: Tensor) -> bool:
        """Whether another value of the argument gives another output."""
        if value.dtype == torch.bool:
            others = [~value]
        elif value.is_floating_point():
            others = [value + self._noise(value), torch.zeros_like(value)]
        else:
            others = [value.flip(0)] if value.dim() else [value + 1]
        return any(not self._same(self._run(changed={key: other}), self._output) for other in others)

    def _run(self, sequence: Tensor | None = None, changed: dict[str, Tensor] | None = None) -> Any:
        """The output with another sequence (B, T, D) and other arguments; None if that raises or gives no tensor."""
        order = [self._call.axes.index(axis) for axis in range(3)]
        as_called = (self.sequence if sequence is None else sequence).permute(order)
        arguments = self._arguments | dict.fromkeys(self._copies, as_called) | (changed or {})
        bound = inspect.BoundArguments(inspect.signature(self._module.forward), arguments)
        clones: dict[int, Tensor] = {}  # arguments that are one tensor stay one

        def clone(tensor: Tensor) -> Tensor:
            return clones.setdefault(id(tensor), tensor.clone())

        args, kwargs = tree_map_only(Tensor, clone, (bound.args, bound.kwargs))
        try:
            output = self._module(*args, **kwargs)
        except Exception:
            return None
        return output if isinstance(output, Tensor) and output.dim() == 2 else None

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._random).to(like)

    def _scale(self) -> Tensor:
        return self.sequence.abs().max().clamp(min=1.0)

    def _same(self, first: Any, second: Any) -> bool:
        return self._distance(first, second) <= _SAME

    def _differs(self, first: Any, second: Any) -> bool:
        return _OTHER < self._distance(first, second) < math.inf

    @staticmethod
    def _distance(first: Any, second: Any) -> float:
        """Largest difference relative to the largest value; infinite if there is a NaN."""
        if first is None or second is None or first.shape != second.shape:
            return math.inf
        largest = torch.maximum(first.abs().max(), second.abs().max()).clamp(min=torch.finfo(first.dtype).tiny)
        distance = float((first - second).abs().max() / largest)
        return math.inf if math.isnan(distance) else distance
