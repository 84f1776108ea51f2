"""`magnitude`: remove the weights of smallest magnitude, or the units of smallest magnitude or another score.

Sources: arXiv 2407.20601 and section 2.3 of the thesis behind it; for the scores see `compressor.surgery.units.scores`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult
from compressor.methods.removal import (
    Batches,
    first_batches,
    masked,
    masked_changes,
    refuse_non_finite,
    remove_units,
    with_whole_masks,
)
from compressor.methods.retrain import Retrain, compare
from compressor.methods.targets import Selection, layer_ratios, select_layers, select_weights
from compressor.nn.patterns import check_patterns
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from compressor.surgery.units.planning import Scorer

Score = Literal["l1", "l2", "activation", "variance", "sensitivity", "taylor", "random"]
_WEIGHTS_ONLY = ("sparsity", "matrices", "pattern", "schedule", "rounds", "retrain")
_UNITS_ONLY = ("ratio", "ratios", "count", "round_to", "score", "compensate", "calibration_batches")
_SCHEDULE_ONLY = ("rounds", "retrain")


class Magnitude(Method):
    """Remove what has the smallest magnitude: single weights (set to zero) or whole hidden units (smaller tensors).

    Units can go by other scores too. Only `prune: units` makes the file smaller and faster; zeros in a dense matrix do
    neither.
    """

    summary: ClassVar[str] = "remove the weights (zeros) or hidden units (smaller tensors) of smallest magnitude"

    method: Literal["magnitude"] = "magnitude"
    """The recipe word."""

    prune: Literal["weights", "units"]
    """`weights` sets single weights to zero and holds them there; `units` takes hidden units out of recurrent layers,
    whose tensors become smaller."""

    targets: tuple[str, ...] | None = None
    """Globs (or `re:` and a regular expression) on names of parameters or of modules that hold them; every recurrent
    layer where it is left out. Linear, convolution and embedding weights are pruned only where named here; biases
    never."""

    ignore: tuple[str, ...] = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    sparsity: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """With `prune: weights`: fraction of the chosen weights that is zero afterwards, weights pruned by earlier steps
    included; exactly sparsity x number of weights, halves rounded up. 1 removes every chosen weight."""

    matrices: Literal["both", "i2h", "h2h"] = "both"
    """With `prune: weights`: the recurrent layers' input-to-hidden weights (`i2h`), hidden-to-hidden weights (`h2h`, an
    LSTM's projection included), or both."""

    scope: Literal["layer", "global"] | None = None
    """With `sparsity`: one threshold over all chosen matrices (`global`, the default there), or the same sparsity in
    each of them (`layer`). With `prune: units` and `ratio`: the same ratio of every layer and direction (`layer`, the
    default there), or the lowest of all of them together, each score divided by its layer's mean (`global`)."""

    pattern: str | None = None
    """With `prune: weights`, instead of `sparsity`: `N:M`, keep the N largest of every M consecutive weights along the
    input axis, such as `2:4`."""

    schedule: Literal["linear", "cubic"] | None = None
    """With `sparsity`: reach it over several rounds with retraining between, in equal steps or quickly at first
    (`cubic`, Zhu and Gupta 2017: s_t = s_f + (s_0 - s_f)(1 - t/n)^3)."""

    rounds: Annotated[int, Field(ge=2)] | None = None
    """With `schedule`: number of pruning rounds."""

    retrain: Retrain | None = None
    """With `schedule`: options of the retraining between two rounds (not after the last one: that is the recipe's
    next step)."""

    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """With `prune: units`: fraction of the hidden units that is removed, from each layer or from all (`scope`)."""

    ratios: Annotated[dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]], Field(min_length=1)] | None = None
    """With `prune: units`: name of a layer (or a glob, or `re:` and a regular expression) -> ratio of that layer; 0
    leaves it alone. A layer that no pattern fits keeps `ratio`, or is left alone where that is not given. A layer's own
    name goes before patterns. `compressor inspect --sensitivity --budget` finds ratios."""

    count: Annotated[int, Field(ge=1)] | None = None
    """With `prune: units`, instead of `ratio`: number of hidden units that is removed from each layer."""

    round_to: Annotated[int, Field(ge=1)] | None = None
    """With `prune: units`: the number of units kept is rounded up to a multiple of this, for hardware that likes it."""

    score: Score = "l2"
    """With `prune: units`: what a unit is worth; the lowest go. `l1`, `l2`: norm of its incoming and outgoing weights
    over all gates. Measured on `calibration_batches` training batches: `activation`, the mean of its magnitude;
    `variance`, how much it varies; `sensitivity`, how far the outputs move when it is held at its mean; `taylor`, the
    effect of its weights on the training loss, gradient x weight, which needs labels. `random`: a control."""

    @field_validator("targets", "ignore")
    @classmethod
    def _patterns_can_match(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        check_patterns(value or ())
        return value

    @field_validator("ratios")
    @classmethod
    def _ratios_can_match(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        check_patterns(tuple(value or ()))
        return value

    compensate: bool = True
    """With `prune: units`: hand what a removed unit carried to the kept ones, by refitting the weights of every
    consumer to what the original computes on a few training batches (least squares; no labels, no gradients)."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """With `compensate`, and with a score that is measured: how many training batches are used."""

    @field_validator("pattern")
    @classmethod
    def _pattern_is_n_of_m(cls, value: str | None) -> str | None:
        if value is None:
            return None
        match = re.fullmatch(r"([0-9]+):([0-9]+)", value)
        if match is None or not 1 <= int(match[1]) < int(match[2]):
            raise ValueError(f"`{value}` is not a pattern; write N:M with 1 <= N < M, such as `2:4`")
        return value

    @model_validator(mode="after")
    def _options_belong_together(self) -> Magnitude:
        if self.prune == "units":
            self._refuse(_WEIGHTS_ONLY, "belongs to `prune: weights`, not to `prune: units`")
            self._check_amount()
            return self
        self._refuse(_UNITS_ONLY, "belongs to `prune: units`, not to `prune: weights`")
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("`prune: weights` needs either `sparsity` or `pattern`")
        if self.pattern is not None:
            self._refuse(("scope", "schedule", *_SCHEDULE_ONLY), "goes with `sparsity`, not with `pattern`")
        if self.schedule is None:
            self._refuse(_SCHEDULE_ONLY, "has no effect without `schedule`")
        elif self.rounds is None or self.retrain is None:
            raise ValueError(f"`schedule: {self.schedule}` needs `rounds` and `retrain`")
        return self

    def _check_amount(self) -> None:
        if self.ratios is None:
            if (self.ratio is None) == (self.count is None):
                raise ValueError("`prune: units` needs either `ratio` or `count`, or `ratios`")
        elif self.count is not None:
            raise ValueError("`ratios` goes with `ratio`, not with `count`")
        if self.scope == "global" and self.ratio is None:
            raise ValueError("`scope: global` needs `ratio`: the fraction of all layers' units that is removed")
        if self.scope == "global" and self.ratios is not None:
            raise ValueError("`ratios` are ratios of single layers, `scope: global` is one for all: take one of them")

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        """Refuse options that differ from their default; a default written out is fine."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` {why}")

    def check(self, model: nn.Module) -> None:
        """Refuse a model without anything that `targets` names, and weights that are not finite."""
        if self.prune == "units":
            names = self._select_layers(model)[0].names
            refuse_non_finite(model, [name for name, _ in model.named_parameters() if _inside(name, names)])
            return
        refuse_non_finite(model, select_weights(model, self.targets, self.ignore, self.matrices).names)
        if self.retrain is not None:
            self.retrain.check(model)

    def apply(self, state: State, context: Context) -> StepResult:
        """Prune a copy of the model."""
        self.check(state.model)
        return self._prune_units(state, context) if self.prune == "units" else self._prune_weights(state, context)

    def _prune_units(self, state: State, context: Context) -> StepResult:
        from compressor.surgery.units.choice import Amount

        selection, ratios = self._select_layers(state.model)
        calibration = self._calibration(context)
        return remove_units(
            state,
            context,
            selection,
            Amount(self.ratio, self.count, self.round_to or 1, self.scope or "layer", ratios),
            self._scorer(context, calibration),
            calibration=calibration if self.compensate else [],
            required=[name for name in selection.names if self.targets is None or name in {*self.targets, *ratios}],
        )

    def _select_layers(self, model: nn.Module) -> tuple[Selection, dict[str, float]]:
        """The layers that lose units, and the ratio of those that have one of their own."""
        selection = select_layers(model, self.targets, self.ignore)
        ratios = layer_ratios(model, selection.names, self.ratios or {})
        idle = {name: "its ratio in `ratios` is 0" for name, ratio in ratios.items() if ratio == 0}
        if self.ratio is None and self.count is None:
            idle |= dict.fromkeys(set(selection.names) - set(ratios), "no pattern of `ratios` fits it")
        skipped = [Skip(name=name, reason=idle[name]) for name in selection.names if name in idle]
        _refuse_idle(skipped, len(selection.names), "raise a ratio")
        names = tuple(name for name in selection.names if name not in idle)
        ratios = {name: ratio for name, ratio in ratios.items() if name in names}
        return Selection(names, (*selection.skipped, *skipped)), ratios

    def _calibration(self, context: Context) -> Batches:
        """Training batches, where the compensation or the score needs them."""
        if not self.compensate and self.score in ("l1", "l2", "random"):
            return []
        return first_batches(context, self.calibration_batches)

    def _scorer(self, context: Context, calibration: Batches) -> Scorer:
        import torch

        from compressor.surgery.units import scores

        inputs = [inputs for inputs, _ in calibration]
        generator = torch.Generator().manual_seed(context.generator.initial_seed())
        scorers: dict[str, Callable[[], Scorer]] = {
            "l1": lambda: scores.magnitude(1),
            "l2": lambda: scores.magnitude(2),
            "activation": lambda: scores.activation(inputs),
            "variance": lambda: scores.variance(inputs),
            "sensitivity": lambda: scores.sensitivity(inputs, generator),
            "taylor": lambda: scores.taylor(calibration, context.task.loss),
            "random": lambda: scores.random(generator),
        }
        return scorers[self.score]()

    def _prune_weights(self, state: State, context: Context) -> StepResult:
        selection = select_weights(state.model, self.targets, self.ignore, self.matrices)
        current = with_whole_masks(state, selection.names)
        if self.pattern is not None:
            current, skipped = self._by_pattern(current, selection.names)
            return StepResult(current, masked_changes(state, current), (*selection.skipped, *skipped))
        groups, skipped = self._groups(current, selection.names)
        current, history, notes = self._in_rounds(current, groups, context)
        changes = masked_changes(state, current)
        if self.retrain is not None:
            changes += compare(state.model, current.model, current.masks)[0]
        return StepResult(current, changes, (*selection.skipped, *skipped), history, notes)

    def _by_pattern(self, state: State, names: Sequence[str]) -> tuple[State, list[Skip]]:
        from compressor.nn.masks import n_of_m

        n, m = (int(part) for part in (self.pattern or "").split(":"))
        masks = {name: n_of_m(state.model.get_parameter(name), state.masks[name], n, m) for name in names}
        idle = [name for name in names if masks[name].equal(state.masks[name])]
        skipped = [Skip(name=name, reason=f"no {m} consecutive weights have more than {n} left") for name in idle]
        _refuse_idle(skipped, len(names), "take this step out of the recipe")
        return masked(state, masks), skipped

    def _groups(self, state: State, names: Sequence[str]) -> tuple[list[_Group], list[Skip]]:
        """The sets of weights that share a threshold, those left out that have nothing to lose."""
        from compressor.nn.masks import pruned_count

        assert self.sparsity is not None
        groups: list[_Group] = []
        skipped: list[Skip] = []
        for members in [(name,) for name in names] if self.scope == "layer" else [tuple(names)]:
            total = sum(state.masks[name].numel() for name in members)
            pruned = total - sum(int(state.masks[name].sum()) for name in members)
            goal = pruned_count(total, self.sparsity)
            if goal > pruned:
                groups.append(_Group(members, pruned, goal))
            else:
                reason = f"{pruned} of {total} weights are pruned already, sparsity {self.sparsity} asks for {goal}"
                skipped += [Skip(name=name, reason=reason) for name in members]
        _refuse_idle(skipped, len(names), "raise `sparsity`")
        return groups, skipped

    def _in_rounds(
        self, state: State, groups: Sequence[_Group], context: Context
    ) -> tuple[State, tuple[dict[str, float], ...], tuple[str, ...]]:
        """Prune to the goal in one or more rounds, with retraining between; gives the history and notes of that."""
        rounds = self.rounds or 1
        history: list[dict[str, float]] = []
        notes: dict[str, None] = {}
        for done in range(1, rounds + 1):
            state = masked(state, self._round_masks(state, groups, done / rounds))
            if self.retrain is None:
                continue
            row = {"round": float(done), "sparsity": _sparsity(state, groups)}
            if done == rounds:
                history.append(row)
                continue
            context.progress.say(f"round {done} of {rounds}: sparsity {row['sparsity']:.3f}, then retraining")
            trained = self.retrain.apply(state, context)
            state = trained.state
            history += [row | epoch for epoch in trained.history]
            notes |= dict.fromkeys(trained.notes)
        return state, tuple(history), tuple(notes)

    def _round_masks(self, state: State, groups: Sequence[_Group], progress: float) -> dict[str, Tensor]:
        from compressor.nn.masks import smallest_pruned

        masks: dict[str, Tensor] = {}
        for group in groups:
            weights = [state.model.get_parameter(name) for name in group.names]
            kept = [state.masks[name] for name in group.names]
            count = group.count_at(progress, self.schedule)
            masks |= zip(group.names, smallest_pruned(weights, kept, count), strict=True)
        return masks


@dataclass(frozen=True)
class _Group:
    """Weights that share one threshold."""

    names: tuple[str, ...]
    pruned: int
    """Before this step."""
    goal: int
    """Pruned weights after it."""

    def count_at(self, progress: float, schedule: str | None) -> int:
        """Pruned weights after the fraction `progress` = t / n of the rounds, exactly the goal after the last one.

        s_t = s_f + (s_0 - s_f) (1 - t / n)^e with e = 3 (`cubic`) or 1 (`linear`), halves rounded up.
        """
        left = (1.0 - progress) ** (3 if schedule == "cubic" else 1)
        return math.floor(self.goal + (self.pruned - self.goal) * left + 0.5)


def _sparsity(state: State, groups: Sequence[_Group]) -> float:
    masks = [state.masks[name] for group in groups for name in group.names]
    return 1.0 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def _refuse_idle(skipped: Sequence[Skip], looked_at: int, hint: str) -> None:
    if len(skipped) == looked_at:
        reasons = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped)
        raise MethodError(f"`magnitude` would change nothing ({reasons})", hint=hint)


def _inside(name: str, modules: Sequence[str]) -> bool:
    return any(not module or name.startswith(f"{module}.") for module in modules)
