"""`heads`: remove whole heads of multi-head attention.

Sources: Michel et al., arXiv 1905.10650 (most heads of a trained model can go); Voita et al., arXiv 1905.09418.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.methods.base import Batches, Context, Control, State, StepResult
from compressor.methods.milder import RemovalMethod
from compressor.methods.patterns import Patterns
from compressor.methods.scoring import unit_scorer
from compressor.methods.targets import select_attention

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from compressor.nn.attention.parts import AttentionParts
    from compressor.surgery.attention.head_scores import HeadScorer
    from compressor.task.contract import Task

Score = Literal["weight", "activation", "sensitivity", "taylor", "random"]


class Heads(RemovalMethod):
    """Remove whole heads of multi-head attention: their rows of queries, keys and values and their output columns.

    The width of the model stays; the number of heads and the four projections shrink, and with them the file and the
    time. Attention that is not PyTorch's is found if the task names it in `attention`.
    """

    summary: ClassVar[str] = "remove whole heads of attention (smaller projections, fewer heads)"

    method: Literal["heads"] = "heads"
    """The recipe word."""

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of attentions or of modules that hold them; all of them if
    left out."""

    ignore: Patterns = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Fraction of the heads that is removed, rounded down, from each attention or from all (`scope`). One head of each
    always stays."""

    keep: Annotated[int, Field(ge=1)] | None = None
    """Instead of `ratio`: number of heads that each attention keeps; one that has no more is left alone."""

    scope: Literal["layer", "global"] = "layer"
    """The same ratio of every attention (`layer`), or the lowest of all of them together, each score divided by its
    attention's mean (`global`)."""

    score: Score = "activation"
    """What a head is worth; the lowest go. Measured on `calibration_batches` training batches: `activation`, the norm
    of what it adds to the output; `sensitivity`, how far the outputs of the model move when it is held at its mean;
    `taylor`, the effect of its weights on the training loss, gradient x weight, which needs labels. Without data:
    `weight`, the norm of the product of its output and value weights, which did worse than chance on a sentence
    encoder. `random`: a control."""

    compensate: bool = True
    """Hand what a removed head carried to the kept ones, by refitting the output projection to what the original
    computes on a few training batches (least squares; no labels, no gradients)."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """With `compensate`, and with a score that is measured: how many training batches are used."""

    compare: bool = False
    """Remove as many heads at random too, carry out the rest of the recipe on that, and put it beside in the report. It
    takes twice the time."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Heads:
        if (self.ratio is None) == (self.keep is None):
            raise ValueError("`heads` needs either `ratio` or `keep`")
        if self.scope == "global" and self.ratio is None:
            raise ValueError("`scope: global` needs `ratio`: the fraction of all heads that is removed")
        return self

    def milder(self, part: float) -> Heads:
        """A smaller ratio; of `keep` the next head more for each quarter that is given back."""
        if self.ratio is not None:
            return self.model_copy(update={"ratio": part * self.ratio})
        assert self.keep is not None
        return self.model_copy(update={"keep": self.keep + math.ceil(4 * (1 - part))})

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without attention that `targets` names, and weights that are not finite."""
        select_attention(model, _with_known(model, task.attention), self.targets, self.ignore)

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Attention."""
        return ("attention",)

    def apply(self, state: State, context: Context) -> StepResult:
        """Remove heads of a copy of the model."""
        return self._remove(state, context, self.score)

    def controls(self) -> Mapping[str, Control]:
        """As many heads at random."""
        return {"random": lambda state, context: self._remove(state, context, "random")} if self.compare else {}

    def _remove(self, state: State, context: Context, score: Score) -> StepResult:
        from compressor.surgery.attention import head_removal
        from compressor.surgery.units.choice import Amount

        declared = _with_known(state.model, context.task.attention)
        selection = select_attention(state.model, declared, self.targets, self.ignore)
        measured = score in ("activation", "sensitivity", "taylor")
        calibration = context.first_batches(self.calibration_batches) if self.compensate or measured else []
        done = head_removal.prune(
            state.model,
            state.masks,
            context.trace_examples(),
            names=selection.names,
            declared=declared,
            amount=Amount(self.ratio, keep=self.keep, scope=self.scope),
            scorer=_scorer(score, context, calibration),
            required=selection.named(self.targets),
            calibration=[inputs for inputs, _ in calibration] if self.compensate else [],
            progress=context.progress,
        )
        return StepResult(
            State(done.model, done.masks, (*state.structure, *done.structure)),
            done.changes,
            (*selection.skipped, *done.skipped),
            notes=done.notes,
            facts={"heads before": float(done.before), "heads after": float(done.after)},
        )


def _with_known(model: nn.Module, declared: Mapping[str, AttentionParts]) -> Mapping[str, AttentionParts]:
    from compressor.surgery.attention.known import with_known

    return with_known(model, declared)


def _scorer(score: Score, context: Context, calibration: Batches) -> HeadScorer:
    from compressor.surgery.attention import head_scores

    if score == "weight":
        return head_scores.weight()
    if score == "activation":
        return head_scores.activation([inputs for inputs, _ in calibration])
    return head_scores.of_units(unit_scorer(score, context, calibration))
