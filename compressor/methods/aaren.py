"""`aaren`: turn trained causal self-attention into attention with one learned query, which streams with a fixed state.

Source: Feng et al., arXiv 2405.13956; see `compressor.nn.attention.aaren`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult
from compressor.methods.removal import first_batches, refuse_non_finite, trace_examples
from compressor.methods.targets import Selection, select_attention
from compressor.nn.patterns import check_patterns
from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from compressor.nn.attention.parts import AttentionParts
    from compressor.progress import Bar
    from compressor.surgery.attention.aaren import Conversion
    from compressor.surgery.attention.causality import Evidence
    from compressor.surgery.attention.declared import Finding
    from compressor.surgery.attention.sites import AttentionSite
    from compressor.task.contract import Task
    from compressor.training.aaren_fitting import Sample

_BATCHES = "let `Task.batches` give at least one"
_QUICK_STEPS = 3
_HELD_OUT = 4
"""Of so many calibration batches one is kept apart, to measure on."""
_NOT_EQUIVALENT = (
    "An Aaren is not function-equivalent to the attention in whose place it stands: its query no longer comes from the "
    "tokens. Let a `retrain` step with `distill: true` follow, and judge by the metric after that."
)
_OF_ERRORS = (
    "Errors are squared distances to what the original layer gave, over its variance: 0 is the same, 1 is no better "
    "than a constant."
)


class Aaren(Method):
    """Turn causal self-attention into an Aaren: one learned query for each layer, a state that does not grow.

    Keys, values and the output projection are carried over, and the query starts from the trained queries on
    calibration data. Which layers are causal is established on the task's own data: from the masks of the actual calls,
    of attention that the task names from all its weights, and by changing later inputs. The result is another function:
    a `retrain` step has to follow.
    """

    summary: ClassVar[str] = "turn causal attention into a recurrence with a fixed state, to be trained by `retrain`"

    may_stream: ClassVar[bool] = True

    method: Literal["aaren"] = "aaren"
    """The recipe word."""

    targets: tuple[str, ...] | None = None
    """Globs (or `re:` and a regular expression) on names of attentions or of modules that hold them; all of them where
    it is left out. One that is named in full has to be convertible, others are left alone where they are not."""

    ignore: tuple[str, ...] = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    query: Literal["fitted", "mean"] = "fitted"
    """What the learned query starts from: `mean`, the mean of the trained queries; or `fitted`, from there on to the
    one query that comes nearest to the layer's outputs, with all other weights held."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many training batches the masks are looked at, and the layers fitted on; their inputs are kept in memory."""

    distill_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 200
    """Optimizer steps, one calibration batch each, in which every converted layer learns by itself to give what the
    original layer gave; 0 leaves that to `retrain`."""

    distill_lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1e-3
    """Highest learning rate of these steps (Adam)."""

    @field_validator("targets", "ignore")
    @classmethod
    def _patterns_can_match(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        check_patterns(value or ())
        return value

    @model_validator(mode="after")
    def _options_belong_together(self) -> Aaren:
        if not self.distill_steps and self.distill_lr != type(self).model_fields["distill_lr"].default:
            raise ValueError("`distill_lr` has no effect with `distill_steps: 0`")
        return self

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without attention that `targets` names, and weights that are not finite."""
        self._select(model, task.attention)

    def apply(self, state: State, context: Context) -> StepResult:
        """Convert a copy of the model."""
        from compressor.surgery.attention.aaren import carried_masks, convert_declared, convert_multihead
        from compressor.surgery.attention.causality import Evidence

        selection = self._select(state.model, context.task.attention)
        model = copy.deepcopy(state.model).to(context.device)
        sites, evidence, skipped = self._causal(model, selection, context)
        masks, structure = dict(state.masks), list(state.structure)
        changes: list[Change] = []
        notes: list[str] = []
        facts: dict[str, float] = {}
        for name, seen in evidence.items():
            before, dropout = _size(model.get_submodule(name)), _dropout(model.get_submodule(name))
            converted: Conversion = (
                convert_multihead(model, name, seen)
                if isinstance(seen, Evidence)
                else convert_declared(model, sites[name], seen)
            )
            own = carried_masks(name, masks)
            errors = self._teach(name, converted, own, context)
            prefix = f"{name}." if name else ""
            masks = {key: mask for key, mask in masks.items() if not key.startswith(prefix)}
            masks |= {f"{prefix}{key}": mask for key, mask in own.items()}
            structure.append(converted.record)
            changes.append(_change(name, before, model.get_submodule(name), model.get_submodule(converted.replaced)))
            facts |= {f"{name}: {key}": value for key, value in errors.items()}
            if dropout and isinstance(seen, Evidence):
                notes.append(f"`{name}` dropped attention weights with probability {dropout:g} in training; no longer.")
        _try_out(model, context)
        home = next(state.model.parameters()).device
        return StepResult(
            State(model.to(home), masks, tuple(structure)),
            tuple(changes),
            tuple(skipped),
            notes=(_NOT_EQUIVALENT, _OF_ERRORS, *notes),
            facts=facts,
        )

    def _select(self, model: nn.Module, declared: Mapping[str, AttentionParts]) -> Selection:
        from compressor.surgery.attention.sites import attention_sites

        selection = select_attention(model, declared, self.targets, self.ignore)
        sites = [site for site in attention_sites(model, declared).found if site.name in selection.names]
        refuse_non_finite(model, [name for site in sites for name in site.parameters])
        return selection

    def _causal(
        self, model: nn.Module, selection: Selection, context: Context
    ) -> tuple[dict[str, AttentionSite], dict[str, Evidence | Finding], list[Skip]]:
        """The sites; those that are causal self-attention, with their calls on the calibration batches; the others.

        Raises:
            MethodError: One that `targets` names in full cannot be converted, or none can.
        """
        from compressor.surgery.attention.sites import attention_sites

        sites = {
            site.name: site
            for site in attention_sites(model, context.task.attention).found
            if site.name in selection.names
        }
        reasons = {name: _unfit(model.get_submodule(name), site) for name, site in sites.items()}
        watched = [site for name, site in sites.items() if reasons[name] is None]
        seen = self._watch(model, watched, context) if watched else {}
        reasons |= {name: found.reason for name, found in seen.items()}
        refused = {name: reason for name, reason in reasons.items() if reason is not None}
        for name, reason in refused.items():
            if name in (self.targets or ()):
                raise MethodError(f"`{name}` cannot become an Aaren: {reason}", hint=_REMEDY)
        if len(refused) == len(selection.names):
            listed = "; ".join(f"`{name}`: {reason}" for name, reason in refused.items())
            raise MethodError(f"no attention of the model can become an Aaren ({listed})", hint=_REMEDY)
        skips = [Skip(name=name, reason=reason) for name, reason in refused.items()]
        fit = {name: found for name, found in seen.items() if name not in refused}
        return sites, fit, [*selection.skipped, *skips]

    def _watch(
        self, model: nn.Module, sites: Sequence[AttentionSite], context: Context
    ) -> dict[str, Evidence | Finding]:
        """What the task's examples and calibration batches show of these attentions, with the calls on the latter."""
        from compressor.surgery.attention.causality import evidence
        from compressor.surgery.attention.declared import examine

        batches = [inputs for inputs, _ in first_batches(context, self.calibration_batches, hint=_BATCHES)]
        examples = trace_examples(context)
        called = [site.name for site in sites if site.kind != "declared"]
        declared = [site for site in sites if site.kind == "declared"]
        found: dict[str, Evidence | Finding] = {}
        rounds = bool(called) + len(declared)
        with context.progress.bar("looking at masks", rounds * (len(batches) + len(examples))) as bar:
            if called:
                on_examples = evidence(model, called, examples, bar.advance)
                on_batches = evidence(model, called, batches, bar.advance)
                for name, seen in on_batches.items():
                    found[name] = replace(seen, reason=seen.reason or on_examples[name].reason)
            for site in declared:
                on_example = examine(model, site, examples, bar.advance)
                on_batch = examine(model, site, batches, bar.advance)
                found[site.name] = replace(on_batch, reason=on_batch.reason or on_example.reason)
        return {site.name: found[site.name] for site in sites}

    def _teach(
        self, name: str, converted: Conversion, masks: Mapping[str, Tensor], context: Context
    ) -> dict[str, float]:
        """Give the layer its query and train it to give what the original gave; says how near it came, stage by stage.

        The errors are measured on samples that nothing was fitted on, where there are enough of them.
        """
        import torch

        from compressor.surgery.refit.calibration import evaluating
        from compressor.training.aaren_fitting import error, fit, set_mean_query

        student, samples = converted.student, converted.samples
        apart = [sample for index, sample in enumerate(samples) if index % _HELD_OUT == _HELD_OUT - 1]
        used = [sample for index, sample in enumerate(samples) if index % _HELD_OUT != _HELD_OUT - 1]
        test = apart or used
        with evaluating(student.module):
            set_mean_query(student, used)
            errors = {"error with the mean query": error(student, test)}
            stages: list[tuple[str, list[str], int, float]] = []
            if self.query == "fitted":
                stages.append(("error with the fitted query", [student.query], _QUERY_STEPS, _QUERY_LR * _scale(used)))
            if self.distill_steps:
                trained = [key for key in student.names if student.module.get_parameter(key).requires_grad]
                stages.append(("error after distillation", trained, self.distill_steps, self.distill_lr))
            best = min(errors.values())
            for title, names, steps, lr in stages:
                generator = torch.Generator().manual_seed(context.generator.initial_seed())
                before = copy.deepcopy(student.module.state_dict())
                total = min(steps, _QUICK_STEPS) if context.quick else steps
                with context.progress.bar(f"fitting {name}", total) as bar:
                    report = _reporter(bar)
                    fit(student, names, used, steps=total, lr=lr, masks=masks, generator=generator, report=report)
                errors[title] = error(student, test)
                if errors[title] > best:
                    student.module.load_state_dict(before)
                best = min(best, errors[title])
        student.module.zero_grad(set_to_none=True)
        return errors


_REMEDY = (
    "an Aaren sees earlier positions only: give the layer a causal mask and retrain it so, or name it under `ignore`; "
    "cross-attention stays as it is"
)
_QUERY_STEPS = 200
_QUERY_LR = 0.03
"""Relative to the size of the layer's inputs, from whose mean the query starts."""


def _unfit(module: nn.Module, site: AttentionSite) -> str | None:
    """What can be said against an attention before it is seen at work."""
    from torch.nn import MultiheadAttention

    from compressor.nn.attention.compact import CompactMultiheadAttention

    if site.kind == "declared":
        return site.reason
    if not site.name:
        return "it is the model itself, which cannot be replaced in place"
    if type(module) not in (MultiheadAttention, CompactMultiheadAttention):
        return (
            f"`{type(module).__name__}` is code of its author's own; build the model on nn.MultiheadAttention, or name "
            "the parts of one that is no subclass in `Task.attention`"
        )
    return site.reason


def _dropout(module: nn.Module) -> float:
    """Of attention weights, where PyTorch's or this package's layer has it."""
    found = getattr(module, "dropout", 0.0)
    return found if isinstance(found, float) else 0.0


def _reporter(bar: Bar) -> Callable[[int, float], None]:
    return lambda done, error: bar.advance(done, note=f"error {error:.3g}")


def _scale(samples: Sequence[Sample]) -> float:
    """Root mean square of the inputs."""
    total = sum(float((sample.x * sample.counts).square().sum()) for sample in samples)
    count = sum(float(sample.counts.sum()) * sample.x.shape[-1] for sample in samples)
    return math.sqrt(total / max(count, 1.0))


def _change(name: str, before: tuple[int, int], module: nn.Module, layer: nn.Module) -> Change:
    """Of an attention, which had `before` parameters and non-zeros; `layer` is what is new in it."""
    after, after_nonzeros = _size(module)
    return Change(
        name=name,
        action="replaced",
        parameters_before=before[0],
        parameters_after=after,
        nonzeros_before=before[1],
        nonzeros_after=after_nonzeros,
        note=layer.extra_repr(),
    )


def _size(module: nn.Module) -> tuple[int, int]:
    """Parameters and how many of them are not zero."""
    parameters = list(module.parameters())
    return sum(part.numel() for part in parameters), sum(int(part.count_nonzero()) for part in parameters)


def _try_out(model: nn.Module, context: Context) -> None:
    """Run the model on the task's example.

    Raises:
        MethodError: It needs something of an attention that an Aaren does not have.
    """
    import torch

    inputs: tuple[Any, ...] = tuple(part.to(context.device) for part in context.task.example(2, context.task.length))
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except Exception as error:
        raise MethodError(
            f"with an Aaren in the place of its attention the model raises {type(error).__name__}: {error}",
            hint="it has to call the layer as `output, _ = layer(x, x, x, ...)` and leave its weights and attention "
            "weights alone; name the layer under `ignore` otherwise",
        ) from error
