"""`aaren`: turn trained causal self-attention into attention with one learned query, which streams with a fixed state.

Source: Feng et al., arXiv 2405.13956; see `compressor.nn.attention.aaren`.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult
from compressor.methods.patterns import Patterns
from compressor.methods.targets import select_attention
from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.methods.patterns import Selection
    from compressor.surgery.attention.causality import Evidence
    from compressor.surgery.attention.conversion_to_aaren import Conversion
    from compressor.surgery.attention.declared_causality import Finding
    from compressor.surgery.attention.site import AttentionSite
    from compressor.task.contract import Task

_BATCHES = "let `Task.batches` give at least one"
_NOT_EQUIVALENT = (
    "An Aaren does not compute the same function as the attention that it replaces: its query no longer comes from the "
    "tokens. Let a `retrain` step with `distill: true` follow, and judge by the metric after that."
)
_OF_ERRORS = (
    "Errors are squared distances to what the original layer gave, over its variance: 0 is the same, 1 is no better "
    "than a constant."
)
_REMEDY = (
    "an Aaren sees earlier positions only: give the layer a causal mask and retrain it so, or name it under `ignore`; "
    "cross-attention stays as it is"
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

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of attentions or of modules that hold them; all of them if
    left out. One that is named in full has to be convertible, others are left alone if they are not."""

    ignore: Patterns = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    query: Literal["fitted", "mean"] = "fitted"
    """What the learned query starts from: `mean`, the mean of the trained queries; or `fitted`, from there on to the
    one query that comes nearest to the layer's outputs, with all other weights held."""

    memory_cache: Annotated[int, Field(ge=0, le=256)] = 0
    """Slots that hold the averages of so many segments apart, and a gate that reads them by what the input asks for;
    what is older is averaged together. 0 for none. Each slot has the size of the state without. Not for attention that
    the task names, which keeps its own code."""

    cache_segment: Annotated[int, Field(ge=1, le=4096)] = 16
    """With `memory_cache`: positions of a segment."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many training batches the masks are looked at, and the layers fitted on; their inputs are kept in memory."""

    distill_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 200
    """Optimizer steps, one calibration batch each, in which every converted layer learns by itself to give what the
    original layer gave; 0 leaves that to `retrain`."""

    distill_lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1e-3
    """Highest learning rate of these steps (Adam)."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Aaren:
        if not self.memory_cache:
            self.refuse_options("cache_segment", why="has no effect without `memory_cache`")
        if not self.distill_steps:
            self.refuse_options("distill_lr", why="has no effect with `distill_steps: 0`")
        return self

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without attention that `targets` names, and weights that are not finite."""
        select_attention(model, task.attention, self.targets, self.ignore)

    def replaces(self, model: nn.Module, task: Task) -> Mapping[str, str]:
        """The attention that `targets` names."""
        return dict.fromkeys(select_attention(model, task.attention, self.targets, self.ignore).names, "attention")

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Attention."""
        return ("attention",)

    def apply(self, state: State, context: Context) -> StepResult:
        """Convert a copy of the model."""
        from compressor.surgery.attention.causality import Evidence
        from compressor.surgery.attention.conversion_to_aaren import carried_masks, convert_declared, convert_multihead
        from compressor.surgery.changes import change, size_of

        selection = select_attention(state.model, context.task.attention, self.targets, self.ignore)
        model = copy.deepcopy(state.model).to(context.device)
        sites, evidence, skipped = self._causal(model, selection, context)
        masks, structure = dict(state.masks), list(state.structure)
        cache = {"memory_cache": self.memory_cache, "cache_segment": self.cache_segment}
        changes: list[Change] = []
        notes: list[str] = []
        facts: dict[str, float] = {}
        for name, seen in evidence.items():
            called = isinstance(seen, Evidence)
            before, dropout = size_of(model.get_submodule(name).parameters()), _dropout(model.get_submodule(name))
            converted: Conversion = (
                convert_multihead(model, name, seen, cache, context.restarted_generator())
                if isinstance(seen, Evidence)
                else convert_declared(model, sites[name], seen)
            )
            layer_masks = carried_masks(name, masks)
            errors = self._teach(name, converted, layer_masks, context)
            prefix = f"{name}." if name else ""
            masks = {key: mask for key, mask in masks.items() if not key.startswith(prefix)}
            masks |= {f"{prefix}{key}": mask for key, mask in layer_masks.items()}
            structure.append(converted.record)
            after, note = size_of(model.get_submodule(name).parameters()), model.get_submodule(converted.replaced)
            changes.append(change(name, "replaced", before, after, note=note.extra_repr()))
            facts |= {f"{name}: {key}": value for key, value in errors.items()}
            if dropout and called:
                notes.append(f"`{name}` dropped attention weights with probability {dropout:g} in training; no longer.")
        model.eval()
        context.run_once(
            model,
            problem="the attention of the model cannot become an Aaren",
            hint="it has to call the layer as `output, _ = layer(x, x, x, ...)` and leave its weights and attention "
            "weights alone; name the layer under `ignore` otherwise",
        )
        home = next(state.model.parameters()).device
        return StepResult(
            State(model.to(home), masks, tuple(structure)),
            tuple(changes),
            tuple(skipped),
            notes=(_NOT_EQUIVALENT, _OF_ERRORS, *notes),
            facts=facts,
        )

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
            for site in attention_sites(model, context.task.attention).attentions
            if site.name in selection.names
        }
        reasons = {name: self._unfit(model.get_submodule(name), site) for name, site in sites.items()}
        watched = [site for name, site in sites.items() if reasons[name] is None]
        shown = self._watch(model, watched, context) if watched else {}
        reasons |= {name: seen.reason for name, seen in shown.items()}
        refused = {name: reason for name, reason in reasons.items() if reason is not None}
        for name, reason in refused.items():
            if name in (self.targets or ()):
                raise MethodError(f"`{name}` cannot become an Aaren: {reason}", hint=_REMEDY)
        if len(refused) == len(selection.names):
            listed = "; ".join(f"`{name}`: {reason}" for name, reason in refused.items())
            raise MethodError(f"no attention of the model can become an Aaren ({listed})", hint=_REMEDY)
        skips = [Skip(name=name, reason=reason) for name, reason in refused.items()]
        fit = {name: seen for name, seen in shown.items() if name not in refused}
        return sites, fit, [*selection.skipped, *skips]

    def _unfit(self, module: nn.Module, site: AttentionSite) -> str | None:
        """What speaks against an attention before it is run; None if nothing does."""
        from compressor.surgery.attention.causal_sites import unfit

        if self.memory_cache and site.kind == "declared":
            return "its own code computes its averages and has no place for a memory cache: leave `memory_cache` out"
        return unfit(module, site)

    def _watch(
        self, model: nn.Module, sites: Sequence[AttentionSite], context: Context
    ) -> dict[str, Evidence | Finding]:
        """What the task's examples and calibration batches show of these attentions, with the calls on the latter."""
        from compressor.surgery.attention.causal_sites import rounds, watch

        batches = [inputs for inputs, _ in context.first_batches(self.calibration_batches, hint=_BATCHES)]
        examples = context.trace_examples()
        with context.progress.bar("looking at masks", rounds(sites) * (len(batches) + len(examples))) as bar:
            return watch(model, sites, examples, batches, bar.advance)

    def _teach(self, name: str, converted: Conversion, masks: dict[str, Tensor], context: Context) -> dict[str, float]:
        """Give the layer its query and train it to give what the original gave; stage -> error after it."""
        from compressor.surgery.refit.calibration import evaluating
        from compressor.training.aaren_fitting import Schedule, teach

        schedule = Schedule(self.query == "fitted", self.distill_steps, self.distill_lr, context.quick)
        with evaluating(converted.student.module):
            return teach(
                converted.student,
                converted.query,
                converted.samples,
                schedule,
                masks=masks,
                seed=context.generator.initial_seed(),
                progress=context.progress,
                label=name,
            )


def _dropout(module: nn.Module) -> float:
    """Of attention weights, if PyTorch's or this package's layer has it."""
    probability = getattr(module, "dropout", 0.0)
    return probability if isinstance(probability, float) else 0.0
