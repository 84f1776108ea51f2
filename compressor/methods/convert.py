"""`convert`: replace recurrent layers by other recurrences, which accelerators run or which need no loop over time.

Sources: see the targets in `compressor.nn.converted`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Method, State, StepResult
from compressor.methods.order import order_hint
from compressor.methods.patterns import Candidate, Patterns, refuse_unmatched, select
from compressor.nn.converted.target import DESCRIPTIONS, OWN_OPTIONS, Target
from compressor.nn.names import with_holders
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema
    from torch import Tensor, nn

    from compressor.methods.patterns import Selection
    from compressor.nn.converted.layer import SequenceLayer
    from compressor.surgery.converting.sites import Seen
    from compressor.task.contract import Task
    from compressor.training.layer_fitting import Sample

_BATCHES = "let `Task.batches` give at least one"
_NOT_EQUIVALENT = (
    "A converted layer does not compute the same function as the one that it replaces. Let a `retrain` step with "
    "`distill: true` follow, and judge by the metric after that."
)
_OF_ERRORS = (
    "Errors are squared distances to what the original layer gave, over its variance: 0 is the same, 1 is no better "
    "than a constant."
)
_REMEDY = "a converted layer starts from zeros and gives no `c_n`: name the layer under `ignore`, or use `magnitude`"


class Convert(Method):
    """Replace `nn.RNN`, `nn.GRU` and `nn.LSTM` by a layer of another kind, fitted to what the old layer gives.

    The start is solved for by least squares, then each layer learns by itself from the old one; a `retrain` step has
    to follow.
    """

    summary: ClassVar[str] = "replace recurrent layers by others that accelerators run, to be trained by `retrain`"

    method: Literal["convert"] = "convert"
    """The recipe word."""

    to: Target
    """What replaces the layers."""

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of recurrent layers or of modules that hold them; all of them
    if left out. One that is named in full has to be convertible, others are left alone if they are not."""

    ignore: Patterns = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    hidden: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Units: behind each memory of an FSMN, or with a state of their own; as many as the layer has outputs if left
    out."""

    projection: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Channels that have a memory; half of the layer's outputs if left out."""

    depth: Annotated[int, Field(ge=1, le=8)] = 1
    """So many new layers in place of each old one, `hidden` wide in between, fitted together: what units that do not
    see each other cannot tell, those of a second layer can."""

    order: Annotated[int, Field(ge=2, le=1024)] = 20
    """Positions that a memory filters, the current one among them."""

    dilations: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(min_length=1, max_length=64)] = (1,)
    """One memory for each number, one on top of the other, which filters every so manieth position."""

    lookahead: Annotated[int, Field(ge=0, le=1024)] = 0
    """Later positions that each memory filters too. Such a file cannot be streamed; bidirectional layers need it."""

    state: Literal["diagonal", "dense"] = "diagonal"
    """`diagonal`, damped oscillators; or `dense`, a full matrix that starts from HiPPO-LegS, the
    history of a channel in Legendre polynomials, and costs more bytes and time."""

    oscillators: Annotated[int, Field(ge=1, le=4096)] = 4
    """Damped oscillators of each channel in a `diagonal` state, two numbers of state each."""

    state_size: Annotated[int, Field(ge=2, le=256)] = 8
    """Numbers of state of each channel in a `dense` state."""

    heads: Annotated[int, Field(ge=1, le=1024)] = 4
    """Groups of channels, each with keys of its own; they divide `projection` up."""

    keys: Annotated[int, Field(ge=1, le=1024)] = 8
    """Running averages, sums or rows of each head, which the input mixes."""

    forget: bool = True
    """What came long ago fades. `false` weighs all of a sequence alike, so that an endless stream
    hardly changes any more."""

    constant_gates: bool = False
    """How fast a head forgets is a number instead of a function of the input: a fixed kernel over
    time, which is cheaper and does not select."""

    memory_cache: Annotated[int, Field(ge=0, le=256)] = 0
    """Slots that hold the memory of so many segments apart, and a gate that reads them by what the input asks for; what
    is older is put together. 0 for none. Each slot has the size of the state without."""

    cache_segment: Annotated[int, Field(ge=1, le=4096)] = 16
    """Positions of a segment of `memory_cache`."""

    cell: Literal["gru", "lstm"] | None = None
    """Which cell; that of the layer if left out, and `gru` instead of an RNN."""

    clip: Annotated[float, Field(gt=0.0, le=4.0, allow_inf_nan=False)] = 0.5
    """How strongly a unit may see its own last output. Up to 0.9 three to five iterations solve
    all positions at once; where eight don't, training goes through them one by one."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many training batches the layers are fitted on; their inputs are kept in memory."""

    distill_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 500
    """Optimizer steps, one calibration batch each, in which every layer learns by itself to give what the old one gave;
    0 leaves it at the least-squares start."""

    distill_lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 3e-3
    """Highest learning rate of these steps (Adam)."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Convert:
        for name, owners in OWN_OPTIONS.items():
            if self.to not in owners:
                self.refuse_options(name, why=f"belongs to `to: {_listed(owners)}`, not to `to: {self.to}`")
        other = "oscillators" if self.state == "dense" else "state_size"
        self.refuse_options(other, why=f"has no effect with `state: {self.state}`")
        if not self.memory_cache:
            self.refuse_options("cache_segment", why="has no effect without `memory_cache`")
        if not self.distill_steps:
            self.refuse_options("distill_lr", why="has no effect with `distill_steps: 0`")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What each target is, and which ones an option belongs to, from their one list."""
        described = handler.resolve_ref_schema(handler(schema))
        kinds = " ".join(f"`{word}` is {target.what}." for word, target in DESCRIPTIONS.items())
        described["description"] = described["description"].replace("\n\n", f"\n\n{kinds} ", 1)
        for name, owners in OWN_OPTIONS.items():
            option = described["properties"][name]
            text = option["description"]
            option["description"] = f"With `to: {_listed(owners, '`, `', '` and `')}`: {text[0].lower()}{text[1:]}"
        return described

    def check(self, model: nn.Module) -> None:
        """Refuse a model without a recurrent layer that `targets` names, and one that cannot be converted."""
        from compressor.surgery.converting.sites import convertible_layers

        layers = convertible_layers(model)
        for name in self._select(model, layers).names:
            if not name:
                raise MethodError(
                    "the model itself is the recurrent layer, which cannot be replaced in place",
                    hint="put it into a module of your own, as an attribute",
                )
            if layers[name].bidirectional and not self.lookahead:
                remedy = (
                    f"give `lookahead`, such as {self.order - 1}; the file cannot be streamed, as before"
                    if self.to == "fsmn"
                    else "convert it to `fsmn` with `lookahead`, or leave it (`ignore`)"
                )
                raise MethodError(
                    f"`{name}` is bidirectional: its outputs depend on later positions, and those of the new layer do "
                    "not",
                    hint=remedy,
                )

    def replaces(self, model: nn.Module, task: Task) -> Mapping[str, str]:
        """The recurrent layers that `targets` names."""
        from compressor.surgery.converting.sites import convertible_layers

        return dict.fromkeys(self._select(model, convertible_layers(model)).names, "recurrent layer")

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Recurrent layers."""
        return ("single recurrent layer", "recurrent layer")

    def apply(self, state: State, context: Context) -> StepResult:
        """Convert the layers in a copy of the model."""
        import copy
        from functools import partial

        from compressor.methods.conversion_targets import builder, note
        from compressor.surgery.converting.conversion import convert
        from compressor.surgery.converting.sites import convertible_layers
        from compressor.surgery.replacing import replace_in_copy

        self.check(state.model)
        model = copy.deepcopy(state.model).to(context.device)
        layers = convertible_layers(model)
        selection = self._select(model, layers)
        seen, skipped = self._watch(model, selection, context)
        masks, structure = dict(state.masks), list(state.structure)
        changes, facts = [], dict[str, float]()
        for name, own in seen.items():
            old = layers[name]
            build = builder(self.to, self.model_dump(), old)
            made = convert(old, own.calls, build, partial(self._teach, context, name))
            replaced = replace_in_copy(model, masks, name, made.module, note=note(old, made.module))
            model, masks = replaced.model, replaced.masks
            structure.append(replaced.record)
            changes.append(replaced.change)
            facts |= {f"{name}: {stage}": value for stage, value in made.errors.items()}
        _try_out(model, list(seen), context)
        home = next(state.model.parameters()).device
        return StepResult(
            State(model.to(home), masks, tuple(structure)),
            tuple(changes),
            tuple(skipped),
            notes=(_NOT_EQUIVALENT, _OF_ERRORS),
            facts=facts,
        )

    def _select(self, model: nn.Module, layers: Mapping[str, Any]) -> Selection:
        """The layers that `targets` names.

        Raises:
            MethodError: The model has none, a pattern matches nothing, or nothing is left.
        """
        candidates = [Candidate(name, "layer", with_holders(name)) for name in layers]
        if not candidates:
            raise MethodError(
                "the model has no nn.RNN, nn.GRU or nn.LSTM to convert",
                hint=order_hint(model, self.method) or "cells in a loop of your own code are not converted",
            )
        refuse_unmatched(self.targets or (), candidates, model, why="is not a recurrent layer")
        return select(candidates, self.targets, self.ignore)

    def _watch(self, model: nn.Module, selection: Selection, context: Context) -> tuple[dict[str, Seen], list[Skip]]:
        """What the data show of the layers that can be converted, and the others.

        Raises:
            MethodError: One that `targets` names in full cannot be converted, or none can.
        """
        from compressor.surgery.converting.sites import watch

        batches = [inputs for inputs, _ in context.first_batches(self.calibration_batches, hint=_BATCHES)]
        with context.progress.bar("looking at calls", None):
            seen = watch(model, selection.names, context.trace_examples(), batches, context.restarted_generator())
        refused = {name: own.reason for name, own in seen.items() if own.reason is not None}
        for name, reason in refused.items():
            if name in (self.targets or ()):
                raise MethodError(f"`{name}` cannot be converted: {reason}", hint=_REMEDY)
        if len(refused) == len(seen):
            listed = "; ".join(f"`{name}`: {reason}" for name, reason in refused.items())
            raise MethodError(f"no recurrent layer of the model can be converted ({listed})", hint=_REMEDY)
        skips = [Skip(name=name, reason=reason) for name, reason in refused.items()]
        return {name: own for name, own in seen.items() if own.reason is None}, [*selection.skipped, *skips]

    def _teach(
        self,
        context: Context,
        name: str,
        label: str,
        layers: Sequence[SequenceLayer],
        samples: Sequence[Sample],
        drive: Tensor,
    ) -> dict[str, float]:
        from compressor.training.start_fitting import teach

        return teach(
            layers,
            samples,
            drive,
            steps=self.distill_steps,
            lr=self.distill_lr,
            seed=context.generator.initial_seed(),
            quick=context.quick,
            progress=context.progress,
            label=f"{name}.{label}" if label else name,
        )


def _listed(words: Sequence[str], comma: str = ", ", last: str = " and ") -> str:
    return last.join((comma.join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _try_out(model: nn.Module, names: Sequence[str], context: Context) -> None:
    """Run the model once on the task's example; refuses one that needs what a converted layer does not have."""
    from compressor.surgery.graph_replacement import gives_out_states
    from compressor.surgery.trial import run_once

    listed = ", ".join(f"`{name}`" for name in names)
    outputs = run_once(
        model,
        context.task.example(2, context.task.length),
        context.device,
        problem=f"{listed} cannot be converted",
        hint="the model has to call the layer as `output, h_n = layer(x)` and leave its weights and `c_n` alone",
    )
    if gives_out_states(outputs):
        raise MethodError(
            f"{listed} cannot be converted: the model gives out the cell state `c_n`, which a converted layer does not "
            "have",
            hint="give out the outputs or `h_n`, or name the layer under `ignore`",
        )
