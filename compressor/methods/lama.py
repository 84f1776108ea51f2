"""`lama`: replace a self-attention pooling by a compact multi-head pooling, fitted to what that one gives.

Source: arXiv 1912.00835 (LAMA); see `compressor.nn.attention.lama`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from compressor.errors import MethodError
from compressor.methods.base import Context, Control, Method, State, StepResult
from compressor.methods.patterns import Candidate, Pattern, listed, matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from compressor.nn.attention.lama import LamaAttention
    from compressor.nn.attention.pooling import MeanPooling, PoolingReplacement, Readout
    from compressor.surgery.attention.pooling_examination import Pooling
    from compressor.training.pooling_fitting import Sample

_QUICK_STEPS = 10
"""Optimizer steps of a rehearsal."""
_NOT_ONE = "name the module that makes one vector (B, F) of a sequence (B, T, D)"


class Lama(Method):
    """Replace a pooling of a sequence to one vector by LAMA: weighted means whose weights are rank-1 bilinear forms.

    The target may be a module of any class: what its arguments mean is found out by running it. The new pooling is
    called in the same way, gives an output of the same size, and is fitted to the old one's outputs on calibration
    batches. It is a replacement, not an equal: a `retrain` step has to follow, best taught by the original
    (`distill: true`).
    """

    summary: ClassVar[str] = "replace a self-attention pooling by LAMA's rank-1 heads, fitted to the old one's outputs"

    method: Literal["lama"] = "lama"
    """The recipe word."""

    target: Pattern
    """Name of the module that is replaced (or a glob, or `re:` and a regular expression, that fits just one): it makes
    one vector of a sequence, such as a self-attentive pooling, or self-attention and a mean in one module."""

    heads: Annotated[int, Field(ge=1, le=256)] = 4
    """Number m of weighted means. A single one can hardly learn: its scores are -1 or 1."""

    context: Literal["learned", "mean"] = "learned"
    """What all steps are compared with: a `learned` vector, the same for all sequences, or the `mean` of the steps."""

    mlp: bool = False
    """Put tanh(W h + b), D x D, before the scores; D^2 + D parameters more."""

    readout: Literal["auto", "mix", "linear", "rows"] = "auto"
    """How m means of D features become the old output of F: `mix`, F / D sums of them (m F / D parameters); `linear`, a
    Linear layer (m D F + F parameters); or `rows`, the means themselves, if m D = F. `auto` is `mix` if the old
    output is found to be weighted sums of the steps too, else `linear`."""

    fit_steps: Annotated[int, Field(ge=0, le=100_000)] = 300
    """Optimizer steps of the fit; 0 solves for the readout only."""

    fit_lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1e-2
    """Highest learning rate of the fit."""

    calibration_batches: Annotated[int, Field(ge=2, le=1000)] = 32
    """Training batches on which it is fitted, without labels; a quarter of them only measures how well."""

    compare: bool = True
    """Put mean pooling with a readout of the same kind beside it in the report, and carry out the rest of the recipe on
    it: is attention needed at all? It takes twice the time."""

    def check(self, model: nn.Module) -> None:
        """Refuse a model without exactly one module that `target` names."""
        self._find(model)

    def apply(self, state: State, context: Context) -> StepResult:
        """Replace the pooling in a copy of the model."""
        import torch

        from compressor.nn.attention.lama import LamaAttention
        from compressor.surgery.changes import size_of

        name, old, samples = self._prepare(state, context)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.generator.initial_seed())
            lama = LamaAttention(old.width, self.heads, context=self.context, mlp=self.mlp)
            new, fitted = self._fitted(lama, old, self._readout(old), samples, context)
            mean, fitted_mean = self._fitted(*self._mean(old), samples, context)
        facts = {
            "explained_by_lama": fitted,
            "explained_by_mean": fitted_mean,
            "pooling_parameters_before": float(size_of(state.model.get_submodule(name).parameters()).parameters),
            "pooling_parameters_after": float(size_of(new.parameters()).parameters),
            "parameters_of_mean": float(size_of(mean.parameters()).parameters),
        }
        return self._replace(state, context, name, new, self._notes(old, facts), facts)

    def controls(self) -> Mapping[str, Control]:
        """Mean pooling with a readout of the same kind."""
        return {"mean": self._mean_instead} if self.compare else {}

    def _mean_instead(self, state: State, context: Context) -> StepResult:
        name, old, samples = self._prepare(state, context)
        new, _ = self._fitted(*self._mean(old), samples, context)
        return self._replace(state, context, name, new, (), {})

    def _find(self, model: nn.Module) -> str:
        """The name of the one module that is replaced."""
        every: list[str] = [name for name, _ in model.named_modules() if name]
        fitting = [name for name in every if matches(self.target, Candidate(name, "other", (name,)))]
        fitting = [name for name in fitting if not any(name.startswith(f"{other}.") for other in fitting)]
        if len(fitting) != 1:
            raise MethodError(
                f"`target: {self.target}` fits {len(fitting)} modules of the model, and one is replaced",
                hint=f"{_NOT_ONE}; the model has {listed(every)}",
            )
        return fitting[0]

    def _prepare(self, state: State, context: Context) -> tuple[str, Pooling, list[Sample]]:
        """The target, what was found out about it, and what went through it on calibration batches."""
        from compressor.surgery.attention.pooling_calls import seen_calls
        from compressor.surgery.attention.pooling_examination import examine
        from compressor.surgery.refit.calibration import evaluating
        from compressor.training.pooling_fitting import Sample

        name, task = self._find(state.model), context.task
        model = copy.deepcopy(state.model).to(context.device)
        shorter = max(task.min_length, (task.length + 1) // 2)
        old = examine(model, name, task.example, (task.length, shorter))
        samples = []
        with evaluating(model), context.progress.bar("running the old pooling", self.calibration_batches) as bar:
            for inputs, _ in context.first_batches(self.calibration_batches):
                (seen,) = seen_calls(model, name, inputs)
                sequence, real = old.call.read((), seen.arguments)
                samples.append(Sample(sequence, real, seen.output))
                bar.advance()
        return name, old, samples

    def _readout(self, old: Pooling) -> Readout:
        if self.readout != "auto":
            return self.readout
        return "mix" if old.sums is not None else "linear"

    def _mean(self, old: Pooling) -> tuple[MeanPooling, Pooling, Readout]:
        """Mean pooling, with the readout of the same kind; one mean is never as wide as several."""
        from compressor.nn.attention.pooling import MeanPooling

        readout = self._readout(old)
        return MeanPooling(old.width), old, "mix" if readout == "rows" else readout

    def _fitted(
        self,
        pool: LamaAttention | MeanPooling,
        old: Pooling,
        readout: Readout,
        samples: list[Sample],
        context: Context,
    ) -> tuple[PoolingReplacement, float]:
        """A replacement, fitted, and the share of the held-out outputs' variance that it explains."""
        from compressor.nn.attention.pooling import PoolingReplacement
        from compressor.training.pooling_fitting import fit_and_measure

        like = samples[0].output
        new = PoolingReplacement(old.call, pool, old.output_size, readout).to(like.device, like.dtype)
        steps = min(self.fit_steps, _QUICK_STEPS) if context.quick else self.fit_steps
        try:
            with context.progress.bar("fitting the new pooling", steps) as bar:
                explained = fit_and_measure(
                    new,
                    samples,
                    steps=steps,
                    lr=self.fit_lr,
                    generator=context.restarted_generator(),
                    report=lambda count, loss: bar.advance(count, f"loss {loss:.3g}"),
                )
        except MethodError as error:
            raise MethodError(f"the fit of the new pooling failed: {error.message}", hint="lower `fit_lr`") from error
        return new, explained

    def _replace(
        self,
        state: State,
        context: Context,
        name: str,
        new: PoolingReplacement,
        notes: tuple[str, ...],
        facts: Mapping[str, float],
    ) -> StepResult:
        from compressor.surgery.replacing import replace_in_copy

        weight = next(state.model.parameters(), None)
        new = new.to(None if weight is None else weight.device)
        note = f"{new.pool.extra_repr()}; readout: {new.kind}"
        replaced = replace_in_copy(state.model, state.masks, name, new, note=note)
        context.run_once(
            replaced.model,
            problem=f"`{name}` cannot be replaced",
            hint="the model may call the module, but must leave its weights and attributes alone",
        )
        after = State(replaced.model, replaced.masks, (*state.structure, replaced.record))
        return StepResult(after, (replaced.change,), notes=notes, facts=facts)

    def _notes(self, old: Pooling, facts: Mapping[str, float]) -> tuple[str, ...]:
        notes = [
            f"How the pooling is called, found out by running it: {old.call}; its output has {old.output_size} features"
            + (f", weighted sums of the steps ({old.sums})." if old.sums is not None else "."),
            f"The new pooling explains {facts['explained_by_lama']:.1%} of the variance of the old one's outputs on "
            f"calibration batches held out, a mean of the steps {facts['explained_by_mean']:.1%}. It is a replacement, "
            "not an equal: a `retrain` step has to follow.",
        ]
        before, after = facts["pooling_parameters_before"], facts["pooling_parameters_after"]
        if after >= before:
            notes.append(
                f"The new pooling is not smaller: {after:,.0f} parameters instead of {before:,.0f}. `readout: mix`, "
                "if it fits, or fewer `heads` take less."
            )
        if self.heads == 1:
            notes.append("With one head every score is -1 or 1, and its weights have practically no gradient.")
        if old.ignored:
            notes.append(f"Arguments that make no difference are ignored: {', '.join(old.ignored)}.")
        return tuple(notes)
