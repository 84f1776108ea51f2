"""`random_graph`: put a sparse stack laid out on a random graph in the place of a recurrent layer, to be trained next.

Source: arXiv 2407.20601 (Darji, 2021), "randomly structured" networks; see `compressor.nn.recurrent.graph`.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from compressor.errors import MethodError, UsageError
from compressor.methods.base import Context, Control, Method, State, StepResult
from compressor.methods.targets import Candidate, matches
from compressor.nn.patterns import check_patterns
from compressor.report import Change, Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

    from compressor.nn.graphs.layered import LayeredGraph
    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.nn.recurrent.graph import GraphRecurrent
    from compressor.nn.recurrent.graph_layout import CellWord
    from compressor.nn.recurrent.stack import RecurrentStack
    from compressor.nn.recurrent.uneven import UnevenRecurrent

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

    target: str | None = None
    """Name of the layer that is replaced (or a glob, or `re:` and a regular expression, that fits just one): an
    `nn.RNN`, `nn.GRU` or `nn.LSTM` that runs forward only. The model's only one where it is left out."""

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
    """Which graph is drawn; the recipe's `seed` where it is left out. The weights come of the recipe's seed."""

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

    @field_validator("target")
    @classmethod
    def _target_can_match(cls, value: str | None) -> str | None:
        check_patterns(() if value is None else (value,))
        return value

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

    def apply(self, state: State, context: Context) -> StepResult:
        """Replace the layer in a copy of the model, and run it once."""
        from compressor.nn.graphs.properties import properties
        from compressor.nn.recurrent.graph import GraphRecurrent

        self.check(state.model)
        with context.progress.bar("laying out the graph", None):
            graph = self.draw(context.generator.initial_seed())
            facts = properties(graph)

        def build(old: RecurrentLayer) -> GraphRecurrent:
            return GraphRecurrent(
                _cell(old),
                old.input_size,
                graph,
                self.units_per_node,
                batch_first=old.batch_first,
                skips=self.skips,
                repeated_rows=self.repeated_rows,
            )

        return self._replace(state, context, build, facts)

    def controls(self) -> Mapping[str, Control]:
        """A dense stack of as many parameters."""
        return {"dense": self._dense} if self.compare else {}

    def draw(self, recipe_seed: int) -> LayeredGraph:
        """The graph.

        Args:
            recipe_seed: Stands in for `graph_seed` where that is left out.

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
        from compressor.nn.recurrent.graph_layout import parameter_count
        from compressor.nn.recurrent.uneven import UnevenRecurrent

        graph = self.draw(context.generator.initial_seed())

        def build(old: RecurrentLayer) -> UnevenRecurrent:
            width, output_size = self.units_per_node * len(graph.layers[-1]), _output_size(old)
            wanted = parameter_count(graph, _cell(old), old.input_size, self.units_per_node, skips=self.skips)
            size = dense_size(old, wanted + _readout_parameters(width, output_size))
            sizes = [[size]] * old.num_layers
            return UnevenRecurrent(
                old.mode, old.input_size, sizes, bias=old.bias, batch_first=old.batch_first, dropout=old.dropout
            )

        return self._replace(state, context, build, {})

    def _replace(
        self,
        state: State,
        context: Context,
        build: Callable[[RecurrentLayer], GraphRecurrent | UnevenRecurrent],
        facts: Mapping[str, float],
    ) -> StepResult:
        """A copy of the model with what `build` makes of the old layer, and a readout, in that layer's place."""
        import torch

        from compressor.nn.recurrent.layers import recurrent_modules
        from compressor.nn.recurrent.stack import RecurrentStack
        from compressor.nn.structure import replace_module, replace_record

        name = self._find(state.model)
        layers = recurrent_modules(state.model)
        old = layers[name]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.generator.initial_seed())
            new = RecurrentStack(build(old), _output_size(old))
        weight = next(old.parameters())
        new = new.to(weight.device, weight.dtype).train(old.training)
        model = copy.deepcopy(state.model)
        replace_module(model, name, new)
        try_out(model, name, context)
        masks = {key: mask for key, mask in state.masks.items() if not key.startswith(f"{name}.")}
        masks |= {f"{name}.{key}": mask.to(weight.device) for key, mask in _masks(new).items()}
        skipped = [Skip(name=other, reason="not the layer that `target` names") for other in layers if other != name]
        return StepResult(
            State(model, masks, (*state.structure, replace_record(name, new))),
            (_change(name, old, new),),
            tuple(skipped),
            notes=_notes(old),
            facts=facts,
        )

    def _find(self, model: nn.Module) -> str:
        """The name of the one layer that is replaced."""
        from compressor.nn.recurrent.layers import recurrent_modules

        every = list(recurrent_modules(model))
        if not every:
            raise MethodError(
                "the model has no nn.RNN, nn.GRU or nn.LSTM that a graph could replace",
                hint="cells and layers that an earlier step replaced do not count",
            )
        target = self.target
        found = (
            every if target is None else [name for name in every if matches(target, Candidate(name, "layer", (name,)))]
        )
        if len(found) != 1:
            which = "the model has" if target is None else f"`target: {target}` fits"
            hint = f"give `target`, one of {_listed(every)}"
            raise MethodError(f"{which} {len(found)} recurrent layers, and one is replaced", hint=hint)
        if not found[0]:
            raise MethodError(
                "the model itself is the recurrent layer, which cannot be replaced in place",
                hint="put it into a module of your own, as an attribute",
            )
        return found[0]


def dense_size(old: RecurrentLayer, parameters: int) -> int:
    """Hidden size H >= 1 at which a dense stack comes nearest to so many parameters, the smaller one of two.

    The stack has the cell, the inputs I and the L layers of `old`, and a readout of H + 1 weights for each output
    where H is not the size of its output. In layer l it has G * H * (I_l + H + 2), with G gates, I_0 = I, I_l = H, and
    without the 2 where there are no biases.
    """
    from compressor.nn.recurrent.layers import cell_of

    output_size, biases = _output_size(old), 2 if old.bias else 0

    def count(size: int) -> int:
        inputs = old.input_size + (old.num_layers - 1) * size
        stack = cell_of(old).gates.count * size * (inputs + old.num_layers * (size + biases))
        return stack + _readout_parameters(size, output_size)

    largest = math.isqrt(parameters) + 1  # a layer alone has more than H^2
    return min(range(1, largest + 1), key=lambda size: abs(count(size) - parameters))


def try_out(model: nn.Module, name: str, context: Context) -> None:
    """Run the model once on the task's example.

    Raises:
        MethodError: It uses the layer called `name` in a way in which a stack of another structure does not work.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    from compressor.nn.recurrent.stack import NoStates

    inputs = tuple(part.to(context.device) for part in context.task.example(2, context.task.length))
    try:
        with torch.no_grad():
            outputs = copy.deepcopy(model).to(context.device).eval()(*inputs)
    except MethodError as error:
        raise MethodError(f"`{name}` cannot be replaced: {error.message}", hint=error.hint) from error
    except Exception as error:
        raise MethodError(
            f"`{name}` cannot be replaced: without it the model raises {type(error).__name__}: {error}",
            hint="it has to call the layer as `output, _ = layer(x)` and leave its weights and states alone",
        ) from error
    if any(isinstance(leaf, NoStates) for leaf in tree_leaves(outputs)):
        raise MethodError(
            f"`{name}` cannot be replaced: the model gives out its last states, and a stack of another structure has "
            "none to give",
            hint="choose a layer whose states are not used",
        )


def _cell(old: RecurrentLayer) -> CellWord:
    return cast("CellWord", old.mode.lower())


def _output_size(old: RecurrentLayer) -> int:
    return old.proj_size or old.hidden_size


def _readout_parameters(width: int, output_size: int) -> int:
    return 0 if width == output_size else (width + 1) * output_size


def _masks(new: RecurrentStack) -> dict[str, Tensor]:
    from compressor.nn.recurrent.graph import GraphRecurrent

    stack = new.stack
    return {f"stack.{key}": mask for key, mask in stack.masks().items()} if isinstance(stack, GraphRecurrent) else {}


def _change(name: str, old: nn.Module, new: RecurrentStack) -> Change:
    (before, before_nonzeros), (after, after_nonzeros) = _size(old), _size(new)
    readout = "" if new.readout is None else f", readout {new.readout.in_features} -> {new.readout.out_features}"
    return Change(
        name=name,
        action="replaced",
        parameters_before=before,
        parameters_after=after,
        nonzeros_before=before_nonzeros,
        nonzeros_after=after_nonzeros,
        note=f"{new.stack.extra_repr()}{readout}",
    )


def _size(module: nn.Module) -> tuple[int, int]:
    """Parameters and how many of them are not zero."""
    parameters = list(module.parameters())
    return sum(part.numel() for part in parameters), sum(int(part.count_nonzero()) for part in parameters)


def _notes(old: RecurrentLayer) -> tuple[str, ...]:
    notes = ["The new weights are random: what the model knew is gone until a `retrain` step."]
    if old.dropout and old.num_layers > 1:
        notes.append(f"The dropout of {old.dropout:g} between the layers of the original is not used on a graph.")
    return tuple(notes)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
