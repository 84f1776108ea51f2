"""`sparsify`: train so that the units which are removed next carry little; see `compressor.training.group_penalty`."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult, loop_examples, trace_example
from compressor.methods.patterns import Patterns
from compressor.methods.retrain import Retrain
from compressor.methods.targets import refuse_non_finite, select_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from compressor.methods.patterns import Selection
    from compressor.surgery.units.own_cells import OwnCell
    from compressor.surgery.units.penalised import PenalisedUnits
    from compressor.task.contract import Task
    from compressor.training.group_penalty import Groups

Penalty = Literal["growing", "group_norm", "lasso", "norm_scale"]
STRENGTHS: Mapping[Penalty, float] = {"growing": 1.0, "group_norm": 1.0, "lasso": 1.0, "norm_scale": 0.1}
"""Without `strength`."""


class Sparsify(Method):
    """Train with a penalty on whole groups of weights: all that belongs to one unit, in every layer that takes it in.

    Put a step that removes units behind it (`magnitude` with `prune: units`, the same `targets` and `ratio`): what
    carries little costs little to remove. Nothing becomes smaller by this step alone.
    """

    summary: ClassVar[str] = "train so that the units that a later step removes carry little (group penalties)"

    method: Literal["sparsify"] = "sparsify"
    """The recipe word."""

    targets: Patterns | None = None
    """Globs (or `re:`) of recurrent layers, Linear layers or convolutions, as of `magnitude`; every recurrent layer and
    cell if left out."""

    ignore: Patterns = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    ratio: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Fraction of the units that a later step is to remove: those of smallest norm. `growing` presses these alone;
    the report says for every penalty what such a fraction carries before and after."""

    scope: Literal["layer", "global"] = "layer"
    """Whether the ratio holds for each layer or for all together, as of `magnitude`."""

    penalty: Penalty = "growing"
    """`growing`: the units that go are chosen at once and pressed harder and harder (GReg-1, arXiv 2012.09243).
    `group_norm`: all are pressed, the weakest of each layer most (DepGraph, arXiv 2301.12900). `lasso`: the sum of all
    groups' norms (arXiv 1709.05027 for LSTM). `norm_scale`: the scales of batch normalisations (arXiv 1708.06519)."""

    strength: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """How strong: a group's weights shrink by learning rate x strength at each optimizer step, times what the penalty
    says (`growing`: times the step's number). 1 by default, 0.1 for `norm_scale`."""

    alpha: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 4.0
    """Of `group_norm`: the weakest group of a layer is pressed 2^alpha times as hard as the strongest."""

    retrain: Retrain
    """Options of the training."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Sparsify:
        if self.penalty != "group_norm":
            self.refuse_options("alpha", why="belongs to `penalty: group_norm`")
        return self

    @property
    def needs_float64(self) -> bool:
        """Units are chosen on a copy on the CPU; the training, the long part, needs none."""
        return False

    @property
    def needs_loss(self) -> bool:
        """As its training."""
        return self.retrain.needs_loss

    def check(self, model: nn.Module) -> None:
        """Refuse a model without anything that `targets` names, or that cannot be trained."""
        self._check(model, {})

    def check_task(self, model: nn.Module, task: Task) -> None:
        """The same of a model some of whose recurrent cells are found only by running it."""
        self._check(model, self._own_cells(model, task))

    def _own_cells(self, model: nn.Module, task: Task) -> Mapping[str, OwnCell]:
        from compressor.surgery.units.own_cells import find_own_cells

        return find_own_cells(model, *loop_examples(task))

    def _check(self, model: nn.Module, own_cells: Mapping[str, OwnCell]) -> Selection:
        selection = select_layers(model, self.targets, self.ignore, own_cells)
        refuse_non_finite(model, [name for name, _ in model.named_parameters()])
        self.retrain.check(model)
        return selection

    def apply(self, state: State, context: Context) -> StepResult:
        """Train a copy of the model under the penalty."""
        selection = self._check(state.model, self._own_cells(state.model, context.task))
        units = self._units(state.model, selection, context.task)
        if self.penalty == "norm_scale" and not units.groups.scales:
            raise MethodError(
                "`penalty: norm_scale` found no batch normalisation behind the chosen layers",
                hint="take `growing` or `group_norm`, or name convolutions in `targets`",
            )
        trained = self.retrain.train(state, context, lambda model: self._shrinking(model, units.groups))
        before = _share(state.model, units.groups)
        after = _share(trained.state.model, self._units(trained.state.model, selection, context.task).groups)
        if not after < before and not context.quick:
            raise MethodError(
                f"the penalty did not concentrate the weights: the units that would go carry {after:.1%} of the "
                f"squared norm of all groups, {before:.1%} before",
                hint="raise `strength` or train longer; if all weights vanished, lower it",
            )
        known = {skip.name for skip in units.skipped}
        others = (skip for skip in (*selection.skipped, *trained.skipped) if skip.name not in known)
        count, going = units.groups.count, int(units.groups.going.sum())
        return replace(
            trained,
            skipped=(*units.skipped, *others),
            notes=(
                *trained.notes,
                f"the {going} of {count} units that would go carry {after:.1%} of the squared norm of all, "
                f"{before:.1%} before",
            ),
            facts={"norm_share_before": before, "norm_share_after": after},
        )

    def _units(self, model: nn.Module, selection: Selection, task: Task) -> PenalisedUnits:
        from compressor.surgery.units.choice import Amount
        from compressor.surgery.units.penalised import penalised_units

        model = copy.deepcopy(model).cpu()
        amount = Amount(self.ratio, scope=self.scope)
        return penalised_units(model, trace_example(task), selection.names, amount, selection.named(self.targets or ()))

    def _shrinking(self, model: nn.Module, groups: Groups) -> Callable[[int, float], None]:
        from compressor.training.group_penalty import GroupPenalty

        strength = STRENGTHS[self.penalty] if self.strength is None else self.strength
        parameters = dict(model.named_parameters())
        return GroupPenalty(parameters, groups, self.penalty, strength=strength, alpha=self.alpha).shrink_


def _share(model: nn.Module, groups: Groups) -> float:
    """What the groups that are to go have of the squared norm of all of them; NaN if all are zero."""
    norms = groups.squared_norms(dict(model.named_parameters())).cpu()
    return float(norms[groups.going].sum() / norms.sum())
