"""`magnitude`: remove the weights of smallest magnitude, or the units of smallest magnitude or another score.

Sources: arXiv 2407.20601 and section 2.3 of the thesis behind it; for the scores see `compressor.surgery.units.scores`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from compressor.methods.base import Context, State, StepResult, loop_examples
from compressor.methods.milder import RemovalMethod
from compressor.methods.patterns import Pattern, Patterns, Selection
from compressor.methods.pruning import changes_of_masks, refuse_idle, remove_units, with_whole_masks
from compressor.methods.retrain import Retrain
from compressor.methods.scoring import WITHOUT_DATA, UnitScore, unit_scorer
from compressor.methods.targets import layer_ratios, refuse_non_finite, select_layers, select_weights
from compressor.methods.weight_pruning import in_rounds, to_pattern
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from compressor.surgery.units.own_cells import OwnCell
    from compressor.task.contract import Task

_WEIGHTS_ONLY = ("sparsity", "matrices", "pattern", "schedule", "rounds", "retrain")
_UNITS_ONLY = ("ratio", "ratios", "count", "round_to", "score", "compensate", "calibration_batches")
_SCHEDULE_ONLY = ("rounds", "retrain")


class Magnitude(RemovalMethod):
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

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of parameters or of modules that hold them; every recurrent
    layer if left out, with `prune: units` also every cell that the model's own code computes. Linear, convolution and
    embedding weights are pruned only if named here; biases never."""

    ignore: Patterns = ()
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

    rounds: Annotated[int, Field(ge=2, le=1000)] | None = None
    """With `schedule`: number of pruning rounds."""

    retrain: Retrain | None = None
    """With `schedule`: options of the retraining between two rounds (not after the last one: that is the recipe's
    next step)."""

    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """With `prune: units`: fraction of the hidden units that is removed, from each layer or from all (`scope`)."""

    ratios: Annotated[dict[Pattern, Annotated[float, Field(ge=0.0, lt=1.0)]], Field(min_length=1)] | None = None
    """With `prune: units`: name of a layer (or a glob, or `re:` and a regular expression) -> ratio of that layer; 0
    leaves it alone. A layer that no pattern fits keeps `ratio`, or is left alone if that is not given. A layer's own
    name goes before patterns. `compressor sensitivity --budget` finds ratios."""

    count: Annotated[int, Field(ge=1)] | None = None
    """With `prune: units`, instead of `ratio`: number of hidden units that is removed from each layer."""

    round_to: Annotated[int, Field(ge=1)] | None = None
    """With `prune: units`: the number of units kept is rounded up to a multiple of this, for hardware that likes it."""

    score: UnitScore = "l2"
    """With `prune: units`: what a unit is worth; the lowest go. `l1`, `l2`: norm of its incoming and outgoing weights
    over all gates; `lamp`: `l2`, and with `scope: global` the square of each divided by the sum of those in its layer
    that are not smaller, so that a layer whose norm lies in few units loses the others first; `distance`: how far these
    weights are from the other units' (FPGM). Measured on `calibration_batches` training batches: `activation`, the mean
    of its magnitude; `variance`, how much it varies; `sensitivity`, how far the outputs move when it is held at its
    mean; with labels, `taylor`, the effect of its weights on the training loss, gradient x weight, and `hessian`, the
    second-order one, from squared gradients. `random`: a control."""

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
            self.refuse_options(*_WEIGHTS_ONLY, why="belongs to `prune: weights`, not to `prune: units`")
            self._check_amount()
            return self
        self.refuse_options(*_UNITS_ONLY, why="belongs to `prune: units`, not to `prune: weights`")
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError("`prune: weights` needs either `sparsity` or `pattern`")
        if self.pattern is not None:
            self.refuse_options("scope", "schedule", *_SCHEDULE_ONLY, why="goes with `sparsity`, not with `pattern`")
        if self.schedule is None:
            self.refuse_options(*_SCHEDULE_ONLY, why="has no effect without `schedule`")
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

    def milder(self, part: float) -> Magnitude:
        """Smaller ratios and sparsities; fewer units, at least one. A pattern stays as it is."""
        changed: dict[str, object] = {}
        if self.ratio is not None:
            changed["ratio"] = part * self.ratio
        if self.ratios is not None:
            changed["ratios"] = {name: part * ratio for name, ratio in self.ratios.items()}
        if self.count is not None:
            changed["count"] = max(1, round(part * self.count))
        if self.sparsity is not None:
            changed["sparsity"] = part * self.sparsity
        return self.model_copy(update=changed)

    def check(self, model: nn.Module) -> None:
        """Refuse a model without anything that `targets` names, and weights that are not finite."""
        self._check(model, {})

    def check_task(self, model: nn.Module, task: Task) -> None:
        """The same of a model some of whose recurrent cells are found only by running it."""
        self._check(model, self._own_cells(model, task))

    def _own_cells(self, model: nn.Module, task: Task) -> Mapping[str, OwnCell]:
        from compressor.surgery.units.own_cells import find_own_cells

        return find_own_cells(model, *loop_examples(task)) if self.prune == "units" else {}

    def _check(self, model: nn.Module, own_cells: Mapping[str, OwnCell]) -> None:
        if self.prune == "units":
            names = self._select_layers(model, own_cells)[0].names
            prefixes = tuple(f"{name}." if name else "" for name in names)
            refuse_non_finite(model, [name for name, _ in model.named_parameters() if name.startswith(prefixes)])
            return
        refuse_non_finite(model, select_weights(model, self.targets, self.ignore, self.matrices).names)
        if self.retrain is not None:
            self.retrain.check(model)

    @property
    def needs_loss(self) -> bool:
        """As the training between rounds, if there is one."""
        return self.retrain is not None and self.retrain.needs_loss

    @property
    def needs_float64(self) -> bool:
        """Units are scored and refitted in float64; masks and the training between rounds need none."""
        return self.prune == "units"

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Recurrent layers, if units go."""
        return ("recurrent layer",) if self.prune == "units" else ()

    @property
    def restructures(self) -> bool:
        """Only if it removes units."""
        return self.prune == "units"

    def apply(self, state: State, context: Context) -> StepResult:
        """Prune a copy of the model."""
        own_cells = self._own_cells(state.model, context.task)
        self._check(state.model, own_cells)
        if self.prune == "units":
            return self._prune_units(state, context, own_cells)
        return self._prune_weights(state, context)

    def _prune_units(self, state: State, context: Context, own_cells: Mapping[str, OwnCell]) -> StepResult:
        from compressor.surgery.units.choice import Amount

        selection, ratios = self._select_layers(state.model, own_cells)
        measured = self.compensate or self.score not in WITHOUT_DATA
        calibration = context.first_batches(self.calibration_batches) if measured else []
        return remove_units(
            state,
            context,
            selection,
            Amount(
                self.ratio,
                self.count,
                self.round_to or 1,
                self.scope or "layer",
                compared="lamp" if self.score == "lamp" else "mean",
                ratios=ratios,
            ),
            unit_scorer(self.score, context, calibration),
            calibration=calibration if self.compensate else [],
            required=selection.named((*(self.targets or ()), *(self.ratios or ()))),
        )

    def _select_layers(self, model: nn.Module, own_cells: Mapping[str, OwnCell]) -> tuple[Selection, dict[str, float]]:
        """The layers that lose units, and the ratio of those that have one of their own."""
        selection = select_layers(model, self.targets, self.ignore, own_cells)
        ratios = layer_ratios(model, selection.names, self.ratios or {})
        idle = {name: "its ratio in `ratios` is 0" for name, ratio in ratios.items() if ratio == 0}
        if self.ratio is None and self.count is None:
            idle |= dict.fromkeys(set(selection.names) - set(ratios), "no pattern of `ratios` fits it")
        skipped = [Skip(name=name, reason=idle[name]) for name in selection.names if name in idle]
        refuse_idle(skipped, len(selection.names), "raise a ratio")
        names = tuple(name for name in selection.names if name not in idle)
        chosen = {name: ratio for name, ratio in ratios.items() if name in names}
        return Selection(names, (*selection.skipped, *skipped)), chosen

    def _prune_weights(self, state: State, context: Context) -> StepResult:
        from compressor.nn.weight_groups import weight_groups
        from compressor.surgery.changes import trained_changes

        selection = select_weights(state.model, self.targets, self.ignore, self.matrices)
        current = with_whole_masks(state, selection.names)
        if self.pattern is not None:
            current, skipped = to_pattern(current, selection.names, self.pattern)
            return StepResult(current, changes_of_masks(state, current), (*selection.skipped, *skipped))
        assert self.sparsity is not None
        groups, idle = weight_groups(current.masks, selection.names, self.sparsity, by_layer=self.scope == "layer")
        skipped = [Skip(name=name, reason=reason) for name, reason in idle.items()]
        refuse_idle(skipped, len(selection.names), "raise `sparsity`")
        current, history, notes = in_rounds(
            current, groups, context, rounds=self.rounds or 1, schedule=self.schedule, retrain=self.retrain
        )
        changes = changes_of_masks(state, current)
        if self.retrain is not None:
            changes += trained_changes(state.model, current.model, current.masks)[0]
        return StepResult(current, changes, (*selection.skipped, *skipped), history, notes)
