"""`aaren`: turn trained causal self-attention into attention with one learned query, which streams with a fixed state.

Source: Feng et al., arXiv 2405.13956; see `compressor.nn.aaren`.
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
from compressor.methods.targets import Selection, check_patterns, select_attention
from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from compressor.methods.base import TrainingTask
    from compressor.nn.aaren import AarenAttention
    from compressor.nn.aaren_fitting import Sample
    from compressor.nn.attention_parts import AttentionParts
    from compressor.progress import Bar
    from compressor.surgery.attention_sites import AttentionSite
    from compressor.surgery.causality import Evidence

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
    calibration data. Which layers are causal is established on the task's own data, from the masks of the actual
    calls and by changing later inputs. The result is another function: a `retrain` step has to follow.
    """

    summary: ClassVar[str] = "turn causal attention into a recurrence with a fixed state, to be trained by `retrain`"

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

    def check_task(self, model: nn.Module, task: TrainingTask) -> None:
        """Refuse a model without attention that `targets` names, and weights that are not finite."""
        self._select(model, task.attention)

    def apply(self, state: State, context: Context) -> StepResult:
        """Convert a copy of the model."""
        from compressor.nn.aaren import AarenAttention
        from compressor.nn.structure import replace_module, replace_record

        selection = self._select(state.model, context.task.attention)
        model = copy.deepcopy(state.model).to(context.device)
        evidence, skipped = self._causal(model, selection, context)
        masks, structure = dict(state.masks), list(state.structure)
        changes: list[Change] = []
        notes: list[str] = []
        facts: dict[str, float] = {}
        for name, seen in evidence.items():
            old = model.get_submodule(name)
            new = AarenAttention.from_attention(old)  # type: ignore[arg-type]
            own = carried_masks(name, masks)
            errors = self._teach(name, new, _samples(old, seen), own, context)
            replace_module(model, name, new)
            masks = {key: mask for key, mask in masks.items() if not key.startswith(f"{name}.")}
            masks |= {f"{name}.{key}": mask for key, mask in own.items()}
            structure.append(replace_record(name, new))
            changes.append(_change(name, old, new))
            facts |= {f"{name}: {key}": value for key, value in errors.items()}
            if dropout := getattr(old, "dropout", 0.0):
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
        from compressor.surgery.attention_sites import attention_sites

        selection = select_attention(model, declared, self.targets, self.ignore)
        sites = [site for site in attention_sites(model, declared).found if site.name in selection.names]
        refuse_non_finite(model, [name for site in sites for name in site.parameters])
        return selection

    def _causal(
        self, model: nn.Module, selection: Selection, context: Context
    ) -> tuple[dict[str, Evidence], list[Skip]]:
        """The layers that are causal self-attention, with their calls on the calibration batches; and the others.

        Raises:
            MethodError: One that `targets` names in full cannot be converted, or none can.
        """
        from compressor.surgery.attention_sites import attention_sites

        reasons = {
            site.name: _unfit(model.get_submodule(site.name), site)
            for site in attention_sites(model, context.task.attention).found
            if site.name in selection.names
        }
        watched = [name for name in selection.names if reasons[name] is None]
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
        return {name: found for name, found in seen.items() if name not in refused}, [*selection.skipped, *skips]

    def _watch(self, model: nn.Module, names: Sequence[str], context: Context) -> dict[str, Evidence]:
        """What the task's examples and calibration batches show of these attentions, with the calls on the latter."""
        from compressor.surgery.causality import evidence

        batches = [inputs for inputs, _ in first_batches(context, self.calibration_batches, hint=_BATCHES)]
        examples = trace_examples(context)
        with context.progress.bar("looking at masks", len(batches) + len(examples)) as bar:
            on_examples = evidence(model, names, examples, bar.advance)
            on_batches = evidence(model, names, batches, bar.advance)
        return {
            name: replace(seen, reason=seen.reason or on_examples[name].reason) for name, seen in on_batches.items()
        }

    def _teach(
        self,
        name: str,
        layer: AarenAttention,
        samples: Sequence[Sample],
        masks: Mapping[str, Tensor],
        context: Context,
    ) -> dict[str, float]:
        """Give the layer its query and train it to give what the original gave; says how near it came, stage by stage.

        The errors are measured on samples that nothing was fitted on, where there are enough of them.
        """
        import torch

        from compressor.nn.aaren_fitting import error, fit, set_mean_query

        apart = [sample for index, sample in enumerate(samples) if index % _HELD_OUT == _HELD_OUT - 1]
        used = [sample for index, sample in enumerate(samples) if index % _HELD_OUT != _HELD_OUT - 1]
        test = apart or used
        set_mean_query(layer, used)
        errors = {"error with the mean query": error(layer, test)}
        stages: list[tuple[str, list[str], int, float]] = []
        if self.query == "fitted":
            stages.append(("error with the fitted query", ["query"], _QUERY_STEPS, _QUERY_LR * _scale(used)))
        if self.distill_steps:
            trained = [key for key, parameter in layer.named_parameters() if parameter.requires_grad]
            stages.append(("error after distillation", trained, self.distill_steps, self.distill_lr))
        best = min(errors.values())
        for title, names, steps, lr in stages:
            generator = torch.Generator().manual_seed(context.generator.initial_seed())
            before = copy.deepcopy(layer.state_dict())
            total = min(steps, _QUICK_STEPS) if context.quick else steps
            with context.progress.bar(f"fitting {name}", total) as bar:
                fit(
                    layer, names, used, steps=total, lr=lr, masks=masks, generator=generator, report=_reporter(bar)
                )  # fmt: skip
            errors[title] = error(layer, test)
            if errors[title] > best:
                layer.load_state_dict(before)
            best = min(best, errors[title])
        layer.zero_grad(set_to_none=True)
        return errors


_REMEDY = (
    "an Aaren sees earlier positions only: give the layer a causal mask and retrain it so, or name it under `ignore`; "
    "cross-attention stays as it is"
)
_QUERY_STEPS = 200
_QUERY_LR = 0.03
"""Relative to the size of the layer's inputs, from whose mean the query starts."""


def carried_masks(name: str, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks of an attention called `name`, by the names that the same weights have in an Aaren.

    `nn.MultiheadAttention` has one weight for queries, keys and values or three with names of their own.
    """
    found: dict[str, Tensor] = {}
    for key, mask in masks.items():
        if not key.startswith(f"{name}."):
            continue
        local = key.removeprefix(f"{name}.")
        if local in ("in_proj_weight", "in_proj_bias"):
            kind = local.removeprefix("in_proj_")
            parts = zip("qkv", mask.chunk(3), strict=True)
            found |= {f"{letter}_proj.{kind}": part.clone() for letter, part in parts}
        else:
            found[local.replace("_proj_weight", "_proj.weight")] = mask
    return found


def _unfit(module: nn.Module, site: AttentionSite) -> str | None:
    """What can be said against an attention before it is seen at work."""
    from torch.nn import MultiheadAttention

    from compressor.nn.attention import CompactMultiheadAttention

    if not site.name:
        return "it is the model itself, which cannot be replaced in place"
    if type(module) not in (MultiheadAttention, CompactMultiheadAttention):
        return f"`{type(module).__name__}` is code of its author's own; build the model on nn.MultiheadAttention"
    return site.reason


def _samples(module: nn.Module, seen: Evidence) -> list[Sample]:
    import torch

    from compressor.nn.aaren import hidden
    from compressor.nn.aaren_fitting import Sample
    from compressor.surgery.calibration import evaluating
    from compressor.surgery.causality import time_axis
    from compressor.surgery.tracing import without_fast_path

    samples: list[Sample] = []
    with evaluating(module), without_fast_path():
        for arguments in seen.calls:
            x: Tensor = arguments["query"]
            padding: Tensor | None = arguments.get("key_padding_mask")
            counts = torch.ones(*x.shape[:-1], 1, dtype=x.dtype, device=x.device)
            if padding is not None:
                absent = hidden(padding)
                absent = absent if time_axis(module, x) == 1 or x.dim() == 2 else absent.T
                counts = counts.masked_fill(absent[..., None], 0.0)
            target = module(**dict(arguments))[0].masked_fill(counts == 0.0, 0.0)
            samples.append(Sample(x, padding, target, counts))
    return samples


def _reporter(bar: Bar) -> Callable[[int, float], None]:
    return lambda done, error: bar.advance(done, note=f"error {error:.3g}")


def _scale(samples: Sequence[Sample]) -> float:
    """Root mean square of the inputs."""
    total = sum(float((sample.x * sample.counts).square().sum()) for sample in samples)
    count = sum(float(sample.counts.sum()) * sample.x.shape[-1] for sample in samples)
    return math.sqrt(total / max(count, 1.0))


def _change(name: str, old: nn.Module, new: AarenAttention) -> Change:
    (before, before_nonzeros), (after, after_nonzeros) = _size(old), _size(new)
    return Change(
        name=name,
        action="replaced",
        parameters_before=before,
        parameters_after=after,
        nonzeros_before=before_nonzeros,
        nonzeros_after=after_nonzeros,
        note=new.extra_repr(),
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
