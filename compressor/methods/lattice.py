"""`lattice`: keep the units of a recurrent layer that its order cannot do without.

Source: arXiv 2502.16525 (Sengupta, 2025), which says that the units form a partially ordered set, that meet-irreducible
ones are kept, and that redundant ones and their connections go. The order, its closure and the thresholds are our
readings; see `compressor.nn.lattice` and docs/concepts/lattice.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Batches, Context, Control, Method, State, StepResult
from compressor.methods.patterns import Patterns, Selection
from compressor.methods.pruning import changes_of_masks, masked, remove_units, with_whole_masks
from compressor.methods.targets import refuse_non_finite, select_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from compressor.surgery.units.order import Reading, Settings
    from compressor.surgery.units.planning import Scorer

_WEIGHTS_ONLY = ("sparsity",)
_UNITS_ONLY = ("ratio", "round_to", "compensate", "calibration_batches")
_BINARY_ONLY = ("percentile", "threshold")


class Lattice(Method):
    """Prune a recurrent layer by the order that its recurrent weights put its units in.

    Meet-irreducible units stay, the others, which are meets of units above them, and their connections go; centrality
    decides if a number is asked for. Only `prune: units` makes the file smaller and faster.
    """

    summary: ClassVar[str] = (
        "remove the units (or their connections) that the order of a recurrent layer makes redundant"
    )

    method: Literal["lattice"] = "lattice"
    """The recipe word."""

    prune: Literal["weights", "units"]
    """`weights` sets connections between units to zero and holds them there; `units` takes units out, whose tensors
    become smaller."""

    targets: Patterns | None = None
    """Globs (or `re:` and a regular expression) on names of recurrent layers and cells, or of modules that hold them;
    all of them if left out."""

    ignore: Patterns = ()
    """Globs (or `re:`) of what to leave alone though `targets` names it."""

    adjacency: Literal["binary", "continuous"] = "binary"
    """Which connections the order sees: `binary`, those stronger than a threshold; `continuous`, all of them by degree,
    the strength over the largest one."""

    percentile: Annotated[float, Field(ge=0.0, le=100.0)] = 50.0
    """With `adjacency: binary`: the weakest per cent of connections do not count."""

    threshold: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    """With `adjacency: binary`, instead of `percentile`: an absolute strength that a connection has to exceed."""

    combine: Literal["max", "l2"] = "max"
    """How a connection's strength comes of its weights in all gates: the largest magnitude, or their Euclidean norm."""

    order: Literal["closure", "reachability"] = "closure"
    """`closure`: unit i is below j if all that i drives is driven by j too, and a unit is redundant if it drives
    just what several others above it have in common. `reachability`: i is below j if j is reached from i; units that
    reach each other are one element, so that it says nothing of dense layers."""

    scope: Literal["layer", "global"] = "layer"
    """One order for each layer and direction, or one over all recurrent layers of the model with the connections
    between layers, top-down ones included."""

    centrality: Literal["degree", "closeness", "betweenness", "strength"] = "degree"
    """Which units go first among equals, and stand for a class of equal ones: by their number of connections, their
    nearness, the shortest paths through them, or the sum of their strengths."""

    tolerance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """With `adjacency: continuous`: degrees that differ by no more are equal."""

    sparsity: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """With `prune: weights`: fraction of the connections that is zero afterwards, those with a kept unit going last,
    weak ones first; as many as the order says if left out."""

    ratio: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """With `prune: units`: fraction of each layer's units that is removed, those that the order keeps going last; as
    many as the order says if left out."""

    round_to: Annotated[int, Field(ge=1)] | None = None
    """With `prune: units`: the number of units kept is rounded up to a multiple of this, for hardware that likes it."""

    compensate: bool = True
    """With `prune: units`: hand what a removed unit carried to the kept ones, see `magnitude`."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 16
    """With `compensate`: how many training batches are used."""

    compare: bool = True
    """Do the same by magnitude and at random, as many of each layer, carry out the rest of the recipe on those too, and
    put the three side by side in the report. It takes three times the time."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> Lattice:
        of_the_other = _WEIGHTS_ONLY if self.prune == "units" else _UNITS_ONLY
        self.refuse_options(*of_the_other, why=f"does not go with `prune: {self.prune}`")
        if self.adjacency == "continuous":
            self.refuse_options(*_BINARY_ONLY, why="goes with `adjacency: binary`")
        else:
            self.refuse_options("tolerance", why="goes with `adjacency: continuous`")
        if self.threshold is not None:
            self.refuse_options("percentile", why="and `threshold` are two ways to say one thing: take one of them")
        return self

    def check(self, model: nn.Module) -> None:
        """Refuse a model without recurrent layers, targets that are none, and weights that are not finite."""
        names = self._select(model).names
        refuse_non_finite(model, [f"{name}.{local}" for name in names for local in _matrices(model, name)])

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Recurrent layers."""
        return ("recurrent layer",)

    @property
    def restructures(self) -> bool:
        """Only if it removes units."""
        return self.prune == "units"

    def apply(self, state: State, context: Context) -> StepResult:
        """Prune a copy of the model."""
        from compressor.surgery.units.order import scorer

        self.check(state.model)
        seen: list[Reading] = []
        if self.prune == "weights":
            return self._mask(state, context, "lattice")
        result = self._remove(state, context, scorer(self._settings(), self.scope, seen))
        facts = tuple(reading.facts for reading in seen)
        return StepResult(result.state, result.changes, result.skipped, result.history, (*facts, *result.notes))

    def controls(self) -> Mapping[str, Control]:
        """The same amount by weight magnitude and at random."""
        from compressor.surgery.units import order, scores

        if not self.compare:
            return {}
        if self.prune == "weights":
            return {
                "magnitude": lambda state, context: self._mask(state, context, "magnitude"),
                "random": lambda state, context: self._mask(state, context, "random"),
            }

        def control(make: Callable[[Context], Scorer]) -> Control:
            def apply(state: State, context: Context) -> StepResult:
                by = make(context)
                if self.ratio is None:
                    by = order.as_many(by, self._settings(), self.scope)
                return self._remove(state, context, by)

            return apply

        return {
            "magnitude": control(lambda context: scores.magnitude(2)),
            "random": control(lambda context: scores.random(context.restarted_generator())),
        }

    def _settings(self) -> Settings:
        from compressor.surgery.units.order import Settings

        return Settings(
            self.adjacency, self.percentile, self.threshold, self.order, self.combine, self.centrality, self.tolerance
        )

    def _select(self, model: nn.Module) -> Selection:
        from compressor.nn.recurrent.layers import RECURRENT

        selection = select_layers(model, self.targets, self.ignore)
        for name in selection.names:
            if not isinstance(model.get_submodule(name), RECURRENT):
                raise MethodError(
                    f"`{name}` is not a recurrent layer: its units do not drive each other, so they have no order",
                    hint="use `magnitude` for it, and name recurrent layers here",
                )
        return selection

    def _remove(self, state: State, context: Context, scorer: Scorer) -> StepResult:
        from compressor.surgery.units.choice import Amount
        from compressor.surgery.units.order import BELOW

        selection = self._select(state.model)
        calibration: Batches = context.first_batches(self.calibration_batches) if self.compensate else []
        return remove_units(
            state,
            context,
            selection,
            Amount(self.ratio, round_to=self.round_to or 1, below=None if self.ratio is not None else BELOW),
            scorer,
            calibration=calibration,
            required=selection.named(self.targets),
        )

    def _mask(self, state: State, context: Context, by: Literal["lattice", "magnitude", "random"]) -> StepResult:
        """Zero connections: by the order, or as many by magnitude or at random."""
        from compressor.surgery.units.connection_masks import prune_connections, read_connections

        selection = self._select(state.model)
        self._refuse_projections(state.model, selection.names)
        example = context.trace_examples()[0]
        readings = read_connections(state.model, example, selection.names, self._settings(), self.scope)
        weights = [block.weight for reading in readings for block in reading.connections.blocks]
        current = with_whole_masks(state, weights)
        generator = context.restarted_generator()
        after = masked(current, prune_connections(readings, current.masks, by, self.sparsity, generator))
        changes = changes_of_masks(state, after)
        if not changes:
            raise MethodError("the order keeps every connection", hint="ask for a `sparsity`, or raise `percentile`")
        notes = tuple(reading.facts for reading in readings) if by == "lattice" else ()
        return StepResult(after, changes, selection.skipped, notes=notes)

    def _refuse_projections(self, model: nn.Module, names: Sequence[str]) -> None:
        for name in names:
            if getattr(model.get_submodule(name), "proj_size", 0):
                raise MethodError(
                    f"`{name}` projects its units before they come back, so that no single weight connects two of them",
                    hint="use `prune: units`, or name it under `ignore`",
                )


def _matrices(model: nn.Module, name: str) -> list[str]:
    return [local for local, _ in model.get_submodule(name).named_parameters(recurse=False) if "weight" in local]
