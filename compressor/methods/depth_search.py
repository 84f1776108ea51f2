"""`depth_search`: fewer layers, in the chain that a search finds: left out, repeated, reordered.

Source: arXiv 2507.07996 (CoLa), which searches a chain for each input and is told the right answer; here one chain is
searched for all inputs, on calibration data, so that it can be shipped.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.errors import MethodError
from compressor.methods.base import Context, Control, Method, State, StepResult, trace_example
from compressor.methods.patterns import Candidate, Pattern, listed, matches
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from compressor.surgery.depth.beam import Rules, Trials
    from compressor.surgery.depth.chains import Chain, Site
    from compressor.surgery.depth.errors import ChainErrors
    from compressor.task.contract import Task

    Search = Callable[[Rules, Trials, Context], Chain]

_BATCHES = "let `Task.batches` give at least one"
_NEXT = "Nothing was trained: let a `retrain` step with `distill: true` follow, and judge by the metric after that."
_HEARD = {"last": "", "linear": ", and a map behind them", "multilayer": ", and a map of all of them"}
"""What a change says of each `pooling`."""
Move = Literal["skip", "repeat", "swap"]


class DepthSearch(Method):
    """Run fewer layers of a stack: which ones, in which order and how often is found by a search on calibration data.

    A layer that is left out is gone from the file and from the time. One that is repeated costs its time again and no
    bytes; each of its places has its own states and caches. The search trains nothing; a `retrain` step has to follow.
    """

    summary: ClassVar[str] = "run fewer layers of a stack, in the chain that a search finds (smaller and faster)"

    method: Literal["depth_search"] = "depth_search"
    """The recipe word."""

    layers: Annotated[int, Field(ge=1)]
    """Layers that run at most, repeated ones counted each time; fewer than the stack has."""

    target: Pattern | None = None
    """Name of the stack (or a glob, or `re:` and a regular expression, that fits just one): a `ModuleList` or
    `Sequential` of layers with inputs and outputs of one shape, or an `nn.RNN`, `nn.GRU` or `nn.LSTM` of several
    layers. The model's only one if left out."""

    search: Literal["beam", "tree", "first"] = "beam"
    """`beam`: layers go one by one, the best `width` chains go on, then single layers are exchanged. `tree`: Monte
    Carlo tree search, which skips and repeats blocks. `first`: none, the first layers stay and the last ones go."""

    moves: tuple[Move, ...] = ("skip", "repeat", "swap")
    """What a chain may do: `skip` layers, `repeat` them, `swap` their order."""

    trials: Annotated[int, Field(ge=1, le=100_000)] = 150
    """Chains that are measured at most."""

    width: Annotated[int, Field(ge=1, le=1000)] = 3
    """With `search: beam`: chains that go on from each length."""

    by: Literal["outputs", "metric"] = "outputs"
    """What is measured: how far the outputs move on `calibration_batches` training batches, without labels; or the
    task's validation metric, equal ones by the outputs."""

    calibration_batches: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many training batches the outputs are compared on."""

    pooling: Literal["last", "linear", "multilayer"] = "last"
    """What is read behind the stack: the `last` layer's output; a `linear` map of it; or (`multilayer`) one of the
    outputs of all layers and of what enters them. The map is fitted without labels to what left the whole stack. For
    lists of layers; in front of a mean over positions it is as good as behind it."""

    pooling_batches: Annotated[int, Field(ge=1, le=10_000)] = 32
    """With a map: how many training batches it is fitted on."""

    compare: bool = False
    """Put the other search and evenly spaced layers beside it in the report, and carry out the rest of the recipe on
    them. It takes three times the time."""

    @model_validator(mode="after")
    def _options_belong_together(self) -> DepthSearch:
        if "skip" not in self.moves:
            raise ValueError("`moves` needs `skip`: the chain is shorter than the stack")
        if self.search != "beam":
            self.refuse_options("width", why="has no effect without `search: beam`")
        if self.pooling == "last":
            self.refuse_options("pooling_batches", why="has no effect without `pooling: linear` or `multilayer`")
        return self

    def check_task(self, model: nn.Module, task: Task) -> None:
        """Refuse a model without a stack that fits, and a budget that is none."""
        self._site(model, task)

    def apply(self, state: State, context: Context) -> StepResult:
        """Search, and give a copy of the model the chain."""
        searches: dict[str, Search] = {"beam": self._beam, "tree": self._tree, "first": _first}
        return self._carry_out(state, context, searches[self.search])

    def controls(self) -> Mapping[str, Control]:
        """The other search, and no search."""
        if not self.compare:
            return {}
        other, search = ("tree", self._tree) if self.search == "beam" else ("beam", self._beam)
        return {
            other: lambda state, context: self._carry_out(state, context, search),
            "evenly spaced": lambda state, context: self._carry_out(state, context, _evenly_spaced),
        }

    def _beam(self, rules: Rules, trials: Trials, context: Context) -> Chain:
        from compressor.surgery.depth.beam import beam_search

        return beam_search(rules, trials, self.width)

    def _tree(self, rules: Rules, trials: Trials, context: Context) -> Chain:
        from compressor.surgery.depth.tree import tree_search

        return tree_search(rules, trials, context.restarted_generator())

    def _carry_out(self, state: State, context: Context, search: Search) -> StepResult:
        from compressor.surgery.changes import change, size_of
        from compressor.surgery.depth.beam import Rules, Trials, evenly_spaced
        from compressor.surgery.depth.chains import arrange, masks_by_parameter, masks_of

        model = copy.deepcopy(state.model).to(context.device).eval()
        site, skipped = self._site(model, context.task)
        rules = Rules(site, self.layers, repeats="repeat" in self.moves, reorders="swap" in self.moves)
        measured = self._measured(model, site, context)
        with context.progress.bar("searching a chain of layers", self.trials) as bar:
            trials = Trials(measured.error, self.trials, bar.advance)
            chain, spaced = search(rules, trials, context), evenly_spaced(rules)
        facts = {
            "layers before": float(site.count),
            "layers after": float(len(chain)),
            "layers stored": float(len(set(chain))),
            "chains measured": float(len(trials.errors)),
            "error of the outputs": measured.outputs(chain),
            f"error of evenly spaced layers ({_spoken(spaced)})": measured.outputs(spaced),
        }
        masks = masks_by_parameter(model, state.masks)
        before = size_of(model.get_submodule(site.name).parameters())
        records = [site.record(chain)]
        arrange(model, site, chain)
        if self.pooling != "last":
            records.append(self._pool(model, state.model, site, len(chain), context))
            facts[f"error of the outputs with `pooling: {self.pooling}`"] = measured.of(model)
        context.run_once(
            model,
            problem=f"the layers of `{site.name}` cannot run as {_spoken(chain)}",
            hint="`forward` has to go through the layers that are there: `for layer in self.layers`",
        )
        after = size_of(model.get_submodule(site.name).parameters())
        note = f"{_spoken(chain)} of the layers 0 to {site.count - 1}{_HEARD[self.pooling]}"
        home = next(state.model.parameters()).device
        return StepResult(
            State(model.to(home), masks_of(model, masks), (*state.structure, *records)),
            (change(site.name, "layers chosen", before, after, note=note),),
            tuple(skipped),
            notes=(_NEXT,),
            facts=facts,
        )

    def _pool(self, model: nn.Module, before: nn.Module, site: Site, count: int, context: Context) -> dict[str, Any]:
        """Put a map behind the layers that are left and fit it, in place; gives the record.

        Raises:
            MethodError: The model does something with its layers that one module in their place cannot.
        """
        from compressor.surgery.depth import mixing
        from compressor.surgery.depth.chains import light_copy
        from compressor.surgery.depth.loops import refuse_otherwise

        original = before if context.device.type == "cpu" else copy.deepcopy(before).to(context.device)
        example = context.task.example(2, context.task.length)
        width = mixing.width_of(original, site, example)
        record = mixing.mix_record(site, count, width, hears_all=self.pooling == "multilayer")
        apart = light_copy(model)
        mix = mixing.apply_mix_record(model, record)
        refuse_otherwise(apart, model, example, context.device, what="pooling")
        batches = [inputs for inputs, _ in context.first_batches(self.pooling_batches, hint=_BATCHES)]
        with context.progress.bar("fitting the map behind the layers", None):
            mixing.fit(mix, model, original, site, batches)
        return record

    def _measured(self, model: nn.Module, site: Site, context: Context) -> ChainErrors:
        """What measures chains of the layers of a stack."""
        from compressor.measure import accuracy
        from compressor.surgery.depth.errors import ChainErrors, OutputError
        from compressor.task.forwards import TorchForward

        task = context.task
        batches = [inputs for inputs, _ in context.first_batches(self.calibration_batches, hint=_BATCHES)]

        def loss_of_metric(changed: nn.Module) -> float:
            value = accuracy.score(task, TorchForward(changed, context.device), validation=True).value
            return -value if task.higher_is_better else value

        return ChainErrors(model, site, OutputError(model, batches), loss_of_metric if self.by == "metric" else None)

    def _site(self, model: nn.Module, task: Task) -> tuple[Site, list[Skip]]:
        """The stack that the chain is for, and the other ones.

        Raises:
            MethodError: Not exactly one fits, or it has no more layers than may stay.
        """
        from compressor.nn.recurrent.layers import is_layer
        from compressor.surgery.depth.sites import find_sites

        found = find_sites(model, trace_example(task))
        sites = {site.name: site for site in found.sites}
        if not sites:
            reasons = "; ".join(f"`{name or '(model)'}`: {reason}" for name, reason in found.refused.items())
            raise MethodError(
                f"the model has no stack whose layers could be left out or repeated ({reasons or 'no list of layers'})",
                hint="put layers that read and give tensors of one shape into an `nn.ModuleList`, and let `forward` go "
                "from one to the next",
            )
        target = self.target
        fitting = [name for name in sites if target is None or matches(target, Candidate(name, "layer", (name,)))]
        if len(fitting) != 1:
            why = f"; `{target}`: {found.refused[target]}" if target in found.refused else ""
            which = "the model has" if target is None else f"`target: {target}` fits"
            raise MethodError(
                f"{which} {len(fitting)} stacks whose layers could be left out, and one is searched{why}",
                hint=f"give `target`, one of {listed(sites)}",
            )
        site = sites[fitting[0]]
        if self.pooling != "last" and is_layer(model.get_submodule(site.name)):
            raise MethodError(
                f"`{site.name}` is one recurrent module, and what leaves its layers inside cannot be read",
                hint="leave `pooling` out; it is for lists of layers",
            )
        if site.count <= self.layers:
            raise MethodError(
                f"`{site.name}` has {site.count} layers and may keep {self.layers}, so nothing would change",
                hint=f"set `layers` to {site.count - 1} or less",
            )
        others = [Skip(name=name, reason="not the stack that `target` names") for name in sites if name != site.name]
        return site, [*others, *(Skip(name=name, reason=reason) for name, reason in found.refused.items() if name)]


def _first(rules: Rules, trials: Trials, context: Context) -> Chain:
    return tuple(range(rules.layers))


def _evenly_spaced(rules: Rules, trials: Trials, context: Context) -> Chain:
    from compressor.surgery.depth.beam import evenly_spaced

    return evenly_spaced(rules)


def _spoken(chain: Chain) -> str:
    return "-".join(map(str, chain))
