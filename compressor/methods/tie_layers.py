"""`tie_layers`: groups of layers share one set of weights, which every file stores once.

Sources: Dehghani et al., arXiv 1807.03819 (one block applied again and again); Lan et al., arXiv 1909.11942, section
3.1 (sharing across layers of an encoder); Geiping et al., arXiv 2510.14961 (when to stop). Own vectors for each layer
stand for the step embeddings of the first.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult
from compressor.methods.patterns import Patterns
from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from compressor.surgery.depth.stacks import Layer, Stack
    from compressor.surgery.depth.ties import Group
    from compressor.task.contract import Task

_SIZE_ONLY = (
    "Layers that share weights are stored once and still all computed: the file shrinks, the time stays. Let a "
    "`retrain` step with `distill: true` follow."
)
_ENDS_EARLY = (
    "Looped layers end when what they work on settles. A budget of time is set by the largest number of steps; after "
    "each step of the recipe the facts have mean and largest number on the evaluation data. Training makes all steps."
)
_FORMATS_OF_LOOPS = "Only ONNX and ORT files have the loop (`Loop`); the other formats refuse it."
_FORMATS = (
    "ONNX, ORT, C and LSTM layers in MNN hold shared weights once; ncnn and the other layers of MNN write them again "
    "for every layer."
)
Indices = tuple[Annotated[int, Field(ge=0)], ...]


class TieLayers(Method):
    """Let groups of layers share one set of weights, stored once in the file. Time and activations stay as they are.

    A stack is a `ModuleList` or `Sequential` with layers of one structure (`nn.TransformerEncoder` and encoders of
    `transformers` have one), or a recurrent module of several layers, such as `nn.LSTM(num_layers=3)`. Every layer
    stays a module of its own with its own states, caches and buffers; a `retrain` step trains the shared weights.
    """

    summary: ClassVar[str] = "let groups of layers share one set of weights (smaller file, same time)"

    method: Literal["tie_layers"] = "tie_layers"
    """The recipe word."""

    groups: Annotated[int, Field(ge=1)] | tuple[Indices, ...] = 1
    """Into how many groups of neighbours the layers of each stack are divided, as equal as possible, or the groups
    themselves by the numbers of the layers: `[[0, 1], [2, 3, 4]]`; a layer in no group stays as it is."""

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of stacks; all that do not lie inside a layer of another stack
    if left out."""

    ignore: Patterns = ()
    """Globs (or `re:`) of stacks to leave alone though `targets` names them."""

    share: Literal["matrices", "all"] = "matrices"
    """`matrices`: every tensor of two axes or more; biases and the numbers of norms, some thousandths of the weights,
    stay each layer's own and tell a layer which step it is. `all`: those too."""

    start: Literal["best", "mean", "first"] = "best"
    """What the shared weights start from: their `mean`, those of the `first` layer, or what of the mean and each layer
    moves the model's outputs least on `calibration_batches` training batches, group after group (`best`)."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 8
    """With `start: best`: how many training batches the outputs are compared on."""

    exit: Literal["latent_diff"] | None = None
    """`latent_diff`: a group becomes one layer in a loop, which a sample leaves as soon as a step changes what the
    layer works on by at most `threshold` of itself. Needs `share: all`; for lists of layers, in ONNX and ORT files."""

    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.03
    """With `exit`: the relative change, Euclidean norms over all positions of a sample, those of padding too."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """With `exit`: the most steps of each loop; as many as the group has layers if left out."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> TieLayers:
        if self.start != "best":
            self.refuse_options("calibration_batches", why="has no effect without `start: best`")
        if self.exit is None:
            self.refuse_options("threshold", "max_steps", why="has no effect without `exit: latent_diff`")
        elif self.share != "all":
            raise ValueError("`exit` needs `share: all`: the layers of a loop are one layer")
        if not isinstance(self.groups, int):
            every = [index for group in self.groups for index in group]
            if not self.groups or any(len(group) < 2 for group in self.groups):
                raise ValueError("`groups`: a group has at least two layers; a layer in no group stays as it is")
            if len(set(every)) < len(every):
                raise ValueError("`groups`: a layer is in one group only")
        return self

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without stacks that `targets` names, and groups of layers that differ."""
        self._groups(model)

    @property
    def restructures(self) -> bool:
        """No; with `exit` layers are replaced, which must not share weights before."""
        return self.exit is not None

    def apply(self, state: State, context: Context) -> StepResult:
        """Share weights in a copy of the model."""
        from compressor.surgery.changes import change, size_of
        from compressor.surgery.depth import ties

        groups, skipped = self._groups(state.model)
        model = copy.deepcopy(state.model).to(context.device)
        sizes = [size_of(ties.distinct(model, group)) for group in groups]
        chosen, facts = self._start(model, groups, state, context)
        masks = dict(state.masks)
        changes: list[Change] = []
        for group, before, start in zip(groups, sizes, chosen, strict=True):
            for names in group.tied_names():
                masks = {name: mask for name, mask in masks.items() if name not in names}
            masks |= ties.carried_masks(group, start, state.masks)
            after = size_of(ties.distinct(model, group))
            note = f"{self.share} shared by {len(group.layers)} layers, from {_spoken(start)}"
            changes.append(change(group.name, "weights shared", before, after, note=note))
        records = [ties.record(groups)]
        if self.exit is not None:
            model, masks, records = self._looped(model, groups, masks, context)
        model.eval()
        context.run_once(
            model,
            problem="the layers cannot share weights",
            hint="name the stack under `ignore`",
        )
        home = next(state.model.parameters()).device
        notes = (_SIZE_ONLY, _FORMATS) if self.exit is None else (_ENDS_EARLY, _FORMATS_OF_LOOPS)
        return StepResult(
            State(model.to(home), masks, (*state.structure, *records)),
            tuple(changes),
            tuple(skipped),
            notes=notes,
            facts=facts,
        )

    def _looped(
        self, model: nn.Module, groups: Sequence[Group], masks: dict[str, Tensor], context: Context
    ) -> tuple[nn.Module, dict[str, Tensor], list[dict[str, Any]]]:
        """The model with its groups as loops, its masks, and the records."""
        from compressor.surgery.depth import loops
        from compressor.surgery.depth.chains import light_copy, masks_by_parameter, masks_of

        looped, records = light_copy(model), []
        by_parameter = masks_by_parameter(model, masks)
        examples = [context.task.example(batch, context.task.length) for batch in (2, 3)]
        for stack in dict.fromkeys(group.stack for group in groups):
            own = [group for group in groups if group.stack == stack]
            axis = loops.batch_axis(model, examples, stack, own[0].layers[0].index, context.device)
            records.append(loops.loop_record(stack, own, self.max_steps, self.threshold, axis))
            loops.apply_loop_record(looped, records[-1])
        as_before = light_copy(model)
        for record in records:  # as many steps as layers and all of them, whatever `max_steps` and `threshold` say
            steps = [len(group) for group in record["groups"]]
            loops.apply_loop_record(as_before, record | {"steps": steps, "threshold": 0.0})
        loops.refuse_otherwise(model, as_before, examples[0], context.device)
        return looped, masks_of(looped, by_parameter), records

    def _start(
        self, model: nn.Module, groups: Sequence[Group], state: State, context: Context
    ) -> tuple[list[str], dict[str, float]]:
        """Share the weights in place; gives what those of each group start from, and the errors of the outputs."""
        from compressor.surgery.depth import ties
        from compressor.surgery.depth.errors import OutputError

        starts = [ties.starts(model, group) for group in groups]
        if self.start != "best":
            names = ["mean" if self.start == "mean" else f"layer {group.layers[0].index}" for group in groups]
            for group, values, name in zip(groups, starts, names, strict=True):
                ties.carried_masks(group, name, state.masks)
                ties.share(model, group.tied_names())
                ties.fill(model, group, values[name])
            return names, {}
        batches = [inputs for inputs, _ in context.first_batches(self.calibration_batches, hint="set `start: mean`")]
        error = OutputError(model, batches)
        names, facts, lowest = [], {}, 0.0
        with context.progress.bar("choosing shared weights", sum(map(len, starts))) as bar:
            for group, values in zip(groups, starts, strict=True):
                ties.share(model, group.tied_names())
                errors = {}
                for name, value in values.items():
                    if name != "mean" or ties.masks_agree(group, state.masks):
                        ties.fill(model, group, value)
                        errors[name] = error.of(model)
                    bar.advance()
                best = min(errors, key=lambda name: errors[name])
                ties.fill(model, group, values[best])
                names.append(best)
                lowest = errors[best]
        facts["error of the outputs"] = lowest
        return names, facts

    def _groups(self, model: nn.Module) -> tuple[list[Group], list[Skip]]:
        """What shares weights, and the stacks that stay as they are.

        Raises:
            MethodError: There is no stack, a pattern matches none, groups do not fit, or nothing would change.
        """
        from compressor.methods.stacks import select_stacks
        from compressor.surgery.depth import ties

        chosen, skipped = select_stacks(model, self.targets, self.ignore)
        groups = []
        for stack in chosen:
            for layers in self._divided(stack):
                group = ties.group_of(model, stack.name, layers, self.share)
                if not group.roles:
                    skipped.append(Skip(name=group.name, reason="it has no matrices; set `share: all`"))
                elif ties.is_tied(model, group):
                    skipped.append(Skip(name=group.name, reason="its layers share these weights already"))
                else:
                    groups.append(group)
        if self.exit is not None:
            from compressor.surgery.depth.loops import refuse_apart

            refuse_apart(groups, {stack.name for stack in chosen if stack.recurrent})
        if not groups:
            listed = "; ".join(f"`{skip.name}`: {skip.reason}" for skip in skipped) or "each group has one layer"
            raise MethodError(f"no layers are left to share weights ({listed})", hint="set a smaller `groups`")
        return groups, skipped

    def _divided(self, stack: Stack) -> list[list[Layer]]:
        """The groups of a stack that have several layers."""
        if isinstance(self.groups, int):
            parts = [part for alike in stack.alike() for part in _split(alike, self.groups)]
            return [part for part in parts if len(part) > 1]
        divided = []
        for indices in self.groups:
            layers = [layer for index in sorted(indices) if (layer := stack.layer(index)) is not None]
            if len(layers) < len(indices):
                numbers = ", ".join(str(layer.index) for layer in stack.layers)
                raise MethodError(
                    f"`groups`: {list(indices)} names a layer that `{stack.name}` does not have",
                    hint=f"its layers with weights are {numbers}; choose stacks with `targets`",
                )
            if len({layer.signature for layer in layers}) > 1:
                raise MethodError(
                    f"`groups`: the layers {list(indices)} of `{stack.name}` differ in class or shapes",
                    hint=f"layers that may share: {'; '.join(_numbers(alike) for alike in stack.alike())}",
                )
            divided.append(layers)
        return divided


def _split(layers: Sequence[Layer], count: int) -> list[list[Layer]]:
    """Into `count` runs whose lengths differ by one at most, longer ones first; no empty ones."""
    count = min(count, len(layers))
    least, longer = divmod(len(layers), count)
    parts, start = [], 0
    for number in range(count):
        end = start + least + (number < longer)
        parts.append(list(layers[start:end]))
        start = end
    return parts


def _numbers(layers: Sequence[Layer]) -> str:
    return ", ".join(str(layer.index) for layer in layers)


def _spoken(start: str) -> str:
    return "their mean" if start == "mean" else start
