"""Whether third-party attention is causal self-attention, and nothing else: found out by running it.

Its code is the author's, so its masks cannot be read. What can be done is to let the layer that makes the values give
other ones: if the value at position j is 1 and all others are 0, what the output projection is given is the weight of j
at every position. So all weights of every head are known, whatever the code, and can be compared with the softmax of
s q k^T over earlier positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.attention.plain import plain_attention
from compressor.surgery.attention.causality import MOST_PERTURBED, looks_ahead
from compressor.surgery.attention.projection_watch import ProjectionWatch, Refused
from compressor.surgery.refit.calibration import calls, evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from compressor.surgery.attention.projection_watch import Seen
    from compressor.surgery.attention.site import AttentionSite
    from compressor.surgery.refit.calibration import Batches

    Arguments = Mapping[str, Any]

_TOLERANCE = 1e-4
"""Largest difference of two attention weights that counts as rounding."""


@dataclass(frozen=True)
class Attended:
    """One call of the module."""

    arguments: Arguments
    """By name."""
    x: Tensor
    """What queries, keys and values are made of, in the module's own order of axes."""
    real: Tensor
    """Which positions count (B, T): the others are passed over by every later one, or by themselves."""


@dataclass(frozen=True)
class Finding:
    """What was found out about one attention."""

    calls: tuple[Attended, ...]
    scale: float
    """s."""
    batch_first: bool
    """Sequences are (B, T, E), not (T, B, E)."""
    reason: str | None
    """Why it is not causal self-attention; None if it is."""


def examine(
    model: nn.Module, site: AttentionSite, batches: Batches, advance: Callable[[], None] = lambda: None
) -> Finding:
    """Watch an attention that the task names at work, and try it out.

    It is causal self-attention if queries, keys and values are made of one sequence, each head's weights are the
    softmax of s q k^T over the positions up to each one (but for padding, which is the same for all), for one s, and
    if its heads' outputs up to a position stay as they are when the sequence behind it changes.

    Args:
        model: The model.
        site: Of kind `declared`.
        batches: Inputs of the model.
        advance: Called after each batch.
    """
    probe = _Probe(model, site)
    with evaluating(model), plain_attention():
        for inputs in batches:
            for _, call in calls(model, [site.name], inputs):
                probe.look(call.arguments)
            advance()
        return probe.finding()


class _Probe:
    """Learns from call after call of one attention."""

    def __init__(self, model: nn.Module, site: AttentionSite) -> None:
        self._site = site
        self._watch = ProjectionWatch(model, site)
        self._calls: list[Attended] = []
        self._times = 0
        self._axis: int | None = None
        self._reason: str | None = None
        self._weights: list[tuple[Tensor, Tensor, Tensor]] = []
        """Of each call: products q k^T, weights (B, h, T, T) and which positions count (B, T)."""

    def look(self, arguments: Arguments) -> None:
        """Learn what one call shows; the first reason against the module is kept."""
        self._times += 1
        if self._reason is None:
            try:
                self._look(arguments)
            except Refused as refused:
                self._reason = str(refused)

    def finding(self) -> Finding:
        """What all calls together show."""
        reason, scale = self._reason, self._scale()
        if reason is None and not self._times:
            reason = "it is never called as a module, so its masks cannot be seen"
        if reason is None and all(weights.shape[-1] == 1 for _, weights, _ in self._weights):
            reason = "every call has one position only, or looks at that one only, which shows nothing about later ones"
        if reason is None:
            reason = next((fault for each in self._weights if (fault := _fault(scale, *each))), None)
        if reason is None and any(self._looks_ahead(call) for call in self._calls[:MOST_PERTURBED]):
            reason = "its outputs change with later inputs, whatever its mask says"
        return Finding(tuple(self._calls), scale, self._axis != 0, reason)

    def _look(self, arguments: Arguments) -> None:
        seen = self._watch.run(arguments)
        inputs = [seen.inputs[role][0] for role in ("query", "key", "value")]
        if any(part.shape != inputs[0].shape or not torch.equal(part, inputs[0]) for part in inputs[1:]):
            raise Refused("it attends from one sequence to another (cross-attention)")
        x = inputs[0]
        if x.dim() != 3 or seen.context.shape[:2] != x.shape[:2] or seen.context.dim() != 3:
            raise Refused(
                f"its projections are given {tuple(x.shape)} and {tuple(seen.context.shape)}, not a batch of sequences"
            )
        self._refuse_other_order(arguments, seen)
        weights = self._all_weights(arguments, seen)
        if weights is None:
            return
        queries, keys = (self._heads(seen.outputs[role]) for role in ("query", "key"))
        # A position is real if any head of it or of a later position looks at it.
        looked = weights.amax(1) > 0.0  # (B, T, T)
        real = looked.tril().any(1)  # (B, T)
        self._weights.append((queries @ keys.mT, weights, real))
        self._calls.append(Attended(arguments, x, real))

    def _refuse_other_order(self, arguments: Arguments, seen: Seen) -> None:
        """Values that are the same at every position have to come out as they are, except if nothing is looked at."""
        told = torch.rand(seen.outputs["value"].shape[-1], generator=torch.Generator().manual_seed(0)) + 1.0
        told = told.to(seen.outputs["value"]).expand_as(seen.outputs["value"])
        context = self._watch.run(arguments, value=told).context.nan_to_num()
        same = (context - told).abs() < _TOLERANCE if context.shape == told.shape else torch.zeros(1).bool()
        if not bool((same | (context == 0.0)).all()) or not bool(same.any()):
            raise Refused(
                "what its output projection is given is not its values weighted by a softmax, one head behind the other"
            )

    def _all_weights(self, arguments: Arguments, seen: Seen) -> Tensor | None:
        """(B, h, T, T): how much each position looks at each; settles the order of the axes.

        Along the wrong axis each looks at itself only, since samples do not see each other: None if that is so along
        both, as with one position.
        """
        for axis in (1, 0) if self._axis is None else (self._axis,):
            weights = self._weights_along(axis, arguments, seen)
            itself = torch.eye(weights.shape[-1], dtype=torch.bool, device=weights.device)
            if self._axis is not None or bool((weights.masked_fill(itself, 0.0) > 0.0).any()):
                self._axis = axis
                return weights
        return None

    def _weights_along(self, axis: int, arguments: Arguments, seen: Seen) -> Tensor:
        values = seen.outputs["value"] if axis == 1 else seen.outputs["value"].transpose(0, 1)  # (B, T, h * d_v)
        (batch, length, _), heads, width = values.shape, self._site.heads, self._site.value_head_width
        weights = values.new_zeros(batch, heads, length, length)
        for start in range(0, length, width):
            count = min(width, length - start)
            told = values.new_zeros(batch, length, heads, width)
            places = torch.arange(count, device=values.device)
            told[:, start + places, :, places] = 1.0
            told = told.flatten(2)
            context = self._watch.run(arguments, value=told if axis == 1 else told.transpose(0, 1)).context
            context = context if axis == 1 else context.transpose(0, 1)
            shares = context.nan_to_num().unflatten(-1, (heads, width))[..., :count]  # (B, T, h, count)
            weights[..., start : start + count] = shares.transpose(1, 2)
        return weights

    def _heads(self, part: Tensor) -> Tensor:
        """Queries or keys (B, h, T, d)."""
        part = part.transpose(0, 1) if self._axis == 0 else part
        heads: Tensor = part.unflatten(-1, (self._site.heads, -1))
        return heads.transpose(1, 2)

    def _scale(self) -> float:
        """s, by least squares: log weights of a position differ by s times the differences of its products."""
        up = down = 0.0
        for products, weights, _ in self._weights:
            logs = weights.clamp(min=1e-30).log().double()
            share = weights.double()
            x = products.double()
            x = x - (share * x).sum(-1, keepdim=True)
            up += float((share * x * (logs - (share * logs).sum(-1, keepdim=True))).sum())
            down += float((share * x.square()).sum())
        usual = self._site.head_width**-0.5
        estimate = up / down if down > 1e-8 else usual
        return usual if abs(estimate - usual) < 1e-4 * usual or estimate <= 0.0 else estimate

    def _looks_ahead(self, call: Attended) -> bool:
        """Whether heads' outputs up to a position change with what lies behind."""
        axis = 0 if self._axis == 0 else 1
        if call.x.shape[axis] == 1:
            return False
        return looks_ahead(lambda x: self._watch.run(call.arguments, x=x).context, call.x, axis, _TOLERANCE)


def _fault(scale: float, products: Tensor, weights: Tensor, real: Tensor) -> str | None:
    """What is wrong with weights (B, h, T, T); None if they are the softmax of s q k^T over earlier positions."""
    length = weights.shape[-1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=weights.device).tril()
    counted = real[:, None, :, None]  # what padded positions look at does not matter
    if bool(((weights > _TOLERANCE) & ~earlier & counted).any()):
        return "it shows positions that come later"
    shown = earlier & real[:, None, None, :]
    scores = (products * scale).masked_fill(~shown, float("-inf"))
    expected = scores.softmax(-1).nan_to_num()
    wrong = ((weights - expected).abs() > _TOLERANCE) & counted
    if not bool(wrong.any()):
        return None
    if bool(((weights == 0.0) & (expected > _TOLERANCE) & counted).any()):
        return "it hides some earlier positions from some later ones (padding is the same for all)"
    return (
        "its weights are not the softmax of s q k^T of what its layers give: numbers are added to scores, or queries "
        "and keys are turned (rotary), normalised or capped"
    )
