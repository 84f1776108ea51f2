"""`random_graph`: replace a recurrent layer by a sparse stack laid out on a random graph, to be trained next.

Source: arXiv 2407.20601 (Darji, 2021), "randomly structured" networks; see `compressor.nn.recurrent.graph`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError, UsageError
from compressor.methods.base import Context, Control, Method, State, StepResult
from compressor.methods.patterns import Candidate, Pattern, listed, matches
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from compressor.nn.graphs.layered import LayeredGraph
    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.nn.recurrent.stack import RecurrentStack
    from compressor.task.contract import Task

Kind = Literal["watts_strogatz", "barabasi_albert", "erdos_renyi"]
_NEEDED: dict[str, str] = {
    "watts_strogatz": "neighbours",
    "barabasi_albert": "attachments",
    "erdos_renyi": "probability",
}
"""The kind of graph -> the option that only it has and that it cannot do without."""


class RandomGraph(Method):
    """Replace a recurrent layer by a sparse stack with the structure of a random graph, from random weights.

    Nodes stand for units and edges for connections between layers; what has no edge is zero and stays so. The step
    teaches nothing: a `retrain` step has to follow, taught by the original (`distill: true`) or from labels alone.
    """

    summary: ClassVar[str] = "replace a recurrent layer by a sparse one on a random graph, to be trained by `retrain`"

    method: Literal["random_graph"] = "random_graph"
    """The recipe word."""

    graph: Kind
    """`watts_strogatz`, a small world, connected; `barabasi_albert`, with few nodes of many connections; or
    `erdos_renyi`, every connection equally likely."""

    nodes: Annotated[int, Field(ge=2, le=1024)]
    """Number of nodes."""

    target: Pattern | None = None
    """Name of the layer that is replaced (or a glob, or `re:` and a regular expression, that fits just one): an
    `nn.RNN`, `nn.GRU` or `nn.LSTM` that runs forward only. The model's only one if left out."""

    neighbours: Annotated[int, Field(ge=2)] | None = None
    """With `graph: watts_strogatz`: how many of its nearest each node of the ring is joined to, below `nodes`; an odd
    number counts as one less."""

    rewiring: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """With `graph: watts_strogatz`: probability with which an edge of the ring gets another end."""

    attachments: Annotated[int, Field(ge=1)] | None = None
    """With `graph: barabasi_albert`: earlier nodes that each new one joins, below `nodes`; also the number of nodes
    that read the input."""

    probability: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """With `graph: erdos_renyi`: probability of every edge."""

    units_per_node: Annotated[int, Field(ge=1, le=4096)] = 1
    """Hidden units that stand for a node; an edge is a dense block of weights between those of its ends."""

    graph_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Which graph is drawn; the recipe's `seed` if left out. The weights come of the recipe's seed."""

    repeated_rows: bool = False
    """Place the zeros of a GRU's or LSTM's gates as the code behind the paper's figures does, which confuses the order
    of its rows; only to reproduce those figures."""

    skips: Literal["inputs", "layers", "full_layers"] = "inputs"
    """Where an edge over a layer ends: `inputs`, in the layer of its target, which reads all nodes that have an edge to
    it; `layers`, as in the paper, in a recurrent layer of its own whose output is added, with the nodes that have such
    an edge; `full_layers`, the same with all nodes of the target's layer, exactly as in the paper."""

    compare: bool = True
    """Put a dense stack of as many parameters beside it in the report, from random weights too, and carry out the rest
    of the recipe on it. It takes twice the time."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> RandomGraph:
        for kind, name in _NEEDED.items():
            value = getattr(self, name)
            if kind == self.graph and value is None:
                raise ValueError(f"`graph: {kind}` needs `{name}`")
            if kind != self.graph and value is not None:
                raise ValueError(f"`{name}` belongs to `graph: {kind}`, not to `graph: {self.graph}`")
        if self.graph != "watts_strogatz" and self.rewiring != 1.0:
            raise ValueError(f"`rewiring` belongs to `graph: watts_strogatz`, not to `graph: {self.graph}`")
        for name in ("neighbours", "attachments"):
            value = getattr(self, name)
            if value is not None and value >= self.nodes:
                raise ValueError(f"`{name}` is {value}; it has to be below `nodes`, which is {self.nodes}")
        return self

    def check(self, model: nn.Module) -> None:
        """Refuse a model without exactly one layer that `target` names, and a layer that runs backward too."""
        name = self._find(model)
        if model.get_submodule(name).bidirectional:
            raise MethodError(
                f"`{name}` is bidirectional, and a stack on a graph runs forward only",
                hint="name a layer that runs forward, or prune this one with `magnitude`",
            )

    def replaces(self, model: nn.Module, task: Task) -> Mapping[str, str]:
        """The layer: the graph's own layers are no single one that a graph could replace again."""
        return {self._find(model): "single recurrent layer"}

    @property
    def looks_for(self) -> tuple[str, ...]:
        """A recurrent layer."""
        return ("single recurrent layer", "recurrent layer")

    def apply(self, state: State, context: Context) -> StepResult:
        """Replace the layer in a copy of the model, and run it once."""
        from compressor.nn.graphs.properties import properties
        from compressor.surgery.graph_replacement import graph_stack

        self.check(state.model)
        with context.progress.bar("laying out the graph", None):
            graph = self.draw(context.generator.initial_seed())
            facts = properties(graph)

        def build(old: RecurrentLayer) -> RecurrentStack:
            return graph_stack(old, graph, self.units_per_node, skips=self.skips, repeated_rows=self.repeated_rows)

        return self._replace(state, context, build, facts)

    def controls(self) -> Mapping[str, Control]:
        """A dense stack of as many parameters."""
        return {"dense": self._dense} if self.compare else {}

    def draw(self, recipe_seed: int) -> LayeredGraph:
        """The graph.

        Args:
            recipe_seed: Used if `graph_seed` is left out.

        Raises:
            MethodError: None that is connected was found.
        """
        from compressor.nn.graphs.random_graphs import barabasi_albert, erdos_renyi, watts_strogatz

        seed = recipe_seed if self.graph_seed is None else self.graph_seed
        try:
            if self.neighbours is not None:
                return watts_strogatz(self.nodes, self.neighbours, self.rewiring, seed)
            if self.attachments is not None:
                return barabasi_albert(self.nodes, self.attachments, seed)
            return erdos_renyi(self.nodes, self.probability or 0.0, seed)
        except UsageError as error:
            raise MethodError(error.message, hint="raise `neighbours`, or try another `graph_seed`") from error

    def _dense(self, state: State, context: Context) -> StepResult:
        """A stack of the original's cell and number of layers with about as many parameters as the graph's."""
        from compressor.surgery.graph_replacement import dense_stack

        graph = self.draw(context.generator.initial_seed())
        return self._replace(
            state, context, lambda old: dense_stack(old, graph, self.units_per_node, skips=self.skips), {}
        )

    def _replace(
        self,
        state: State,
        context: Context,
        build: Callable[[RecurrentLayer], RecurrentStack],
        facts: Mapping[str, float],
    ) -> StepResult:
        """A copy of the model in which what `build` makes of the old layer replaces it."""
        import torch

        from compressor.nn.recurrent.layers import recurrent_modules
        from compressor.surgery.graph_replacement import stack_masks, stack_structure
        from compressor.surgery.replacing import replace_in_copy

        name = self._find(state.model)
        layers = recurrent_modules(state.model)
        old = layers[name]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.generator.initial_seed())
            new = build(old)
        weight = next(old.parameters())
        new = new.to(weight.device, weight.dtype)
        replaced = replace_in_copy(state.model, state.masks, name, new, note=stack_structure(new))
        _try_out(replaced.model, name, context)
        masks = {f"{name}.{key}": mask.to(weight.device) for key, mask in stack_masks(new).items()}
        skipped = [Skip(name=other, reason="not the layer that `target` names") for other in layers if other != name]
        return StepResult(
            State(replaced.model, replaced.masks | masks, (*state.structure, replaced.record)),
            (replaced.change,),
            tuple(skipped),
            notes=_notes(old),
            facts=facts,
        )

    def _find(self, model: nn.Module) -> str:
        """The name of the one layer that is replaced."""
        from compressor.nn.recurrent.layers import cell_of, recurrent_modules

        every = [name for name, module in recurrent_modules(model).items() if cell_of(module).is_native]
        if not every:
            raise MethodError(
                "the model has no nn.RNN, nn.GRU or nn.LSTM that a graph could replace",
                hint="cells and layers that an earlier step replaced do not count",
            )
        target = self.target
        fitting = [name for name in every if target is None or matches(target, Candidate(name, "layer", (name,)))]
        if len(fitting) != 1:
            which = "the model has" if target is None else f"`target: {target}` fits"
            hint = f"give `target`, one of {listed(every)}"
            raise MethodError(f"{which} {len(fitting)} recurrent layers, and one is replaced", hint=hint)
        if not fitting[0]:
            raise MethodError(
                "the model itself is the recurrent layer, which cannot be replaced in place",
                hint="put it into a module of your own, as an attribute",
            )
        return fitting[0]


def _try_out(model: nn.Module, name: str, context: Context) -> None:
    """Run the model once on the task's example; refuses one that needs states of the layer called `name`."""
    from compressor.surgery.graph_replacement import gives_out_states

    outputs = context.run_once(
        model,
        problem=f"`{name}` cannot be replaced",
        hint="the model has to call the layer as `output, _ = layer(x)` and leave its weights and states alone",
    )
    if gives_out_states(outputs):
        raise MethodError(
            f"`{name}` cannot be replaced: the model gives out its last states, and a stack of another structure has "
            "none to give",
            hint="choose a layer whose states are not used",
        )


def _notes(old: RecurrentLayer) -> tuple[str, ...]:
    notes = ["The new weights are random: what the model knew is gone until a `retrain` step."]
    if old.dropout and old.num_layers > 1:
        notes.append(f"The dropout of {old.dropout:g} between the layers of the original is not used on a graph.")
    return tuple(notes)
