"""Hands what removed units carried to the kept ones: every consumer's weights are fitted anew by least squares.

No labels and no gradients; see `docs/concepts/compensation.md` for the formulas and what it bought.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.progress import Silent
from compressor.report import Skip
from compressor.surgery.refit.calibration import Batches, calls, evaluating
from compressor.surgery.refit.consumers import CONSUMERS, stages, why_not
from compressor.surgery.refit.originals import OriginalCalls
from compressor.surgery.refit.terms import Models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from compressor.progress import Progress
    from compressor.surgery.refit.stage import Stage
    from compressor.surgery.refit.terms import Kept
    from compressor.surgery.trace.atoms import Role

TURNS = 2
"""How often a recurrent layer is fitted: first on the states of the original, then on those it comes to itself too.

A third turn moved the speaker encoder's error rate by no more than its noise, for half as much time again.
"""


@dataclass(frozen=True)
class Refit:
    """How well a layer's kept inputs give what all inputs gave, on the calibration batches."""

    names: tuple[str, ...]
    """The parameters that were fitted."""
    error_before: float
    """Sum over rows and samples of squared differences to the original's pre-activations, without the refit."""
    error_after: float
    """The same with it: what the kept units cannot tell."""


@dataclass(frozen=True)
class Compensation:
    """What was fitted and what was not."""

    refits: tuple[Refit, ...]
    skipped: tuple[Skip, ...]


def refit(
    original: nn.Module,
    smaller: nn.Module,
    kept: Kept,
    roles: Mapping[tuple[str, int], Role],
    batches: Batches,
    *,
    masks: Mapping[str, Tensor] | None = None,
    ridge: float | None = None,
    turns: int = TURNS,
    progress: Progress | None = None,
) -> Compensation:
    r"""Fit every consumer of removed units in `smaller` anew, in place, in the order in which the model calls them.

    With x what a consumer is given in the original, x' in the smaller model (whose earlier layers are fitted already),
    and W' the columns of W that were kept:

    .. math:: \min_{\Delta, c} \frac{1}{N} \sum_t |W x_t - (W' + \Delta) x'_t - c|^2 + \rho \, \bar v \, |\Delta|^2

    Where the removed units were always 0 this is :math:`\Delta = 0`: the result is that of the removal alone.

    Args:
        original: The model before the removal; left untouched.
        smaller: The model after it, on the same device, its modules and parameters called as in `original`.
        kept: (parameter name, axis) -> boolean mask of the original's positions, True = kept.
        roles: Of the same keys. In layers that are not torch's own, an axis with the role `in` is a consumer's.
        batches: Inputs of the model. Steps past the end of a packed sequence do not count; those of a padded one do.
        masks: Masks of the smaller model's weights by name, True = kept: the others stay 0.
        ridge: :math:`\rho`, relative to the mean variance :math:`\bar v` of x'; chosen for each sum by fitting on one
            half of the batches and testing on the other if it is left out.
        turns: How often each recurrent layer is fitted, at least 1.
        progress: Told about each layer.
    """
    consumers = {key[0]: key[0].rpartition(".")[0] for key in kept if _consumes(original, key, roles[key])}
    reasons = {weight: why_not(original, weight) for weight in consumers}
    skipped = [_skip(weight, reason) for weight, reason in reasons.items() if reason is not None]
    blocked = {consumers[weight] for weight, reason in reasons.items() if reason is not None}
    names = list(dict.fromkeys(module for module in consumers.values() if module not in blocked))
    refits: list[Refit] = []
    models = Models(original, smaller, kept, masks or {})
    with evaluating(original, smaller), (progress or Silent()).bar("refitting consumers", None) as bar:
        before = OriginalCalls(original, names, batches)
        skipped += [_skip(weight, "it is not called") for weight, module in consumers.items() if module in names
                    and module not in before.counts]  # fmt: skip
        for name in before.counts:
            for stage in stages(models, name):
                bar.advance(note=stage.terms[0].name)
                reason = stage.obstacle() or _fit(stage, before, batches, ridge, turns)
                if reason is None:
                    refits.append(Refit(stage.names, *stage.errors()))
                else:
                    skipped.append(_skip(stage.terms[0].name, reason))
            before.forget(name)
    return Compensation(tuple(refits), tuple(skipped))


def _skip(name: str, reason: str) -> Skip:
    return Skip(name=name, reason=f"not refitted: {reason}")


def _consumes(model: nn.Module, key: tuple[str, int], role: Role) -> bool:
    """Whether an axis of a parameter takes features in; for layers of torch their layout says so."""
    name, axis = key
    if isinstance(model.get_submodule(name.rpartition(".")[0]), CONSUMERS):
        return axis == 1
    return role == "in"


def _fit(stage: Stage, originals: OriginalCalls, batches: Batches, ridge: float | None, turns: int) -> str | None:
    """Fit a layer; gives a reason if it cannot be fitted.

    The samples of later turns join those of the earlier ones: the layer learns to come back to the original's course
    from the states that its own errors led it to.
    """
    for turn in range(turns if stage.recurrent else 1):
        for index, (batch, count) in enumerate(zip(batches, originals.counts[stage.module], strict=True)):
            if not count:
                continue
            before = originals.of(stage.module, index)
            after = calls(stage.models.smaller, [stage.module], batch, most=count)
            if len(before) != len(after):
                return "it is called more often or less in the smaller model"
            for number, ((_, old), (_, new)) in enumerate(zip(before, after, strict=True)):
                half = (index if len(batches) > 1 else number) % 2
                reason = stage.observe(old, new, half=half, forced=turn == 0)
                if reason is not None:
                    return reason
        stage.fit(ridge)
    return None
