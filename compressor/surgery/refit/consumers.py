"""The layers that take features in, as sums of products W x + ... + b whose weights can be fitted anew.

A Linear or convolution is one sum. In an RNN and an LSTM every gate is W_ih x_t + W_hh h_{t-1} + b, fitted as one. In a
GRU so are r and z, but in the new gate n = tanh(W_in x + b_in + r * (W_hn h + b_hn)) each part is a sum of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.nn.least_squares import Moments, Problem, Solution, choose_ridge, pattern_cost
from compressor.nn.recurrent.gates import CELL_GATES, gates, layer_names
from compressor.nn.recurrent.replay import LayerRun, unroll
from compressor.surgery.refit.calibration import CONVOLUTIONS, Call, cell_inputs, patches

Kept = Mapping[tuple[str, int], Tensor]
CONSUMERS: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS, nn.RNNBase, *CELL_GATES)
"""Axis 1 of their weights takes features in."""
_MOST_MULTIPLICATIONS = 1e11
"""What one solve of a masked matrix may take; about half a minute on one core."""
_LEAST_ROWS, _ROWS_PER_INPUT = 1024, 4
"""Of each call at most max(1024, 4 n) of its rows count: neighbouring steps tell nearly the same."""


def why_not(model: nn.Module, name: str) -> str | None:
    """Why the weight of that name cannot be fitted anew; None where it can."""
    owner, _, local = name.rpartition(".")
    module = model.get_submodule(owner)
    kind = next((kind for kind in CONSUMERS if isinstance(module, kind)), None)
    if kind is None or (kind is not nn.RNNBase and type(module).forward is not kind.forward):
        return f"a `{type(module).__name__}` cannot be refitted"
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        return "its channels are in groups"
    parameter = module._parameters.get(local)
    if parameter is None:
        return "it is computed from other parameters"
    owners = {id(other) for other in model.modules() if any(part is parameter for part in other._parameters.values())}
    return "it belongs to other modules too" if len(owners) > 1 else None


class Models:
    """A model, the smaller one that was cut out of it, and what was kept."""

    def __init__(self, original: nn.Module, smaller: nn.Module, kept: Kept, masks: Mapping[str, Tensor]) -> None:
        """See `compensation.refit`."""
        self.original, self.smaller, self.kept, self._masks = original, smaller, kept, masks

    def pair(self, name: str) -> tuple[Any, Any]:
        """The module of that name in both."""
        return self.original.get_submodule(name), self.smaller.get_submodule(name)

    def positions(self, name: str, axis: int) -> Tensor:
        """Indices of those of the original parameter that were kept."""
        parameter = self.original.get_parameter(name)
        mask = self.kept.get((name, axis))
        if mask is None:
            return torch.arange(parameter.size(axis), device=parameter.device)
        return mask.nonzero().flatten().to(parameter.device)

    def term(self, module: str, local: str) -> Term:
        """A weight of a module."""
        name = full(module, local)
        old, new = self.original.get_parameter(name), self.smaller.get_parameter(name)
        rows = old.detach()[self.positions(name, 0)].flatten(1)
        mask = self._masks.get(name)
        allowed = None if mask is None or bool(mask.all()) else mask.to(new.device).flatten(1)
        return Term(name, rows.double(), new, new.detach().flatten(1).to(torch.float64, copy=True), allowed)

    def bias(self, module: str, local: str | None) -> Bias | None:
        """A bias of a module, as it is now."""
        owner = self.smaller.get_submodule(module)
        parameter = None if local is None else owner._parameters.get(local)
        if parameter is None:
            return None
        return Bias(full(module, str(local)), parameter, parameter.detach().to(torch.float64, copy=True))


@dataclass(frozen=True)
class Term:
    """One weight of a sum: W of the original, W' of the smaller model."""

    name: str
    original: Tensor
    """The rows of W that were kept (m, n), flattened, float64."""
    parameter: nn.Parameter
    """W', of m rows."""
    before: Tensor
    """W' before it is fitted (m, n'), flattened, float64."""
    allowed: Tensor | None
    """(m, n'), False where W' has to stay 0; None where it may be anything."""

    def mask(self) -> Tensor:
        """`allowed`, written out."""
        return torch.ones_like(self.before, dtype=torch.bool) if self.allowed is None else self.allowed


@dataclass(frozen=True)
class Bias:
    """The bias of the smaller model that takes a fit's constant."""

    name: str
    parameter: nn.Parameter
    before: Tensor
    """float64"""


@dataclass(frozen=True)
class Sum:
    """Rows that are the same sum of terms."""

    rows: slice
    terms: tuple[int, ...]
    bias: Bias | None


class Stage:
    """One layer's sums, and what their regression needs to know of the samples, in two halves."""

    recurrent = False
    """Whether the layer's weights decide about its own inputs, so that it is fitted in turns."""

    def __init__(self, models: Models, module: str, terms: Sequence[Term], sums: Sequence[Sum]) -> None:
        """No samples yet."""
        self.models, self.module, self.terms, self.sums = models, module, tuple(terms), tuple(sums)
        self._columns = _ranges([term.before.size(1) for term in terms])
        self._outputs = _ranges([part.rows.stop - part.rows.start for part in sums])
        device = terms[0].before.device
        sizes = self._columns[-1].stop, self._outputs[-1].stop
        self._halves = Moments(*sizes, device), Moments(*sizes, device)
        self._random = torch.Generator().manual_seed(0)
        self._solutions: list[Solution] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are fitted."""
        biases = dict.fromkeys(part.bias.name for part in self.sums if part.bias is not None)
        return (*(term.name for term in self.terms), *biases)

    def obstacle(self) -> str | None:
        """Why the layer cannot be fitted."""
        masks = [problem.allowed for problem in map(self._problem, range(len(self.sums)))]
        cost = sum(pattern_cost(mask) for mask in masks if mask is not None)
        return "its mask has too many different rows" if cost > _MOST_MULTIPLICATIONS else None

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """For each term what W, and what W', is applied to in a call: (N, n) and (N, n').

        Args:
            before: The call in the original model.
            after: The same one in the smaller model.
            forced: Recurrent states are the original's, not those that the smaller layer came to.
        """
        raise NotImplementedError

    def observe(self, before: Call, after: Call, *, half: int, forced: bool) -> str | None:
        """Take in one call, for one half of the samples; gives a reason where the models cannot be compared."""
        for wide, narrow in self.pairs(before, after, forced=forced):
            count = len(wide[0])
            if any(len(part) != count for part in (*wide, *narrow)):
                return "its inputs have another number of steps in the smaller model"
            most = max(_LEAST_ROWS, _ROWS_PER_INPUT * self._columns[-1].stop)
            if count > most:
                chosen = torch.randperm(count, generator=self._random)[:most].to(wide[0].device)
                wide, narrow = [part[chosen] for part in wide], [part[chosen] for part in narrow]  # noqa: PLW2901
            inputs = [part.double() for part in narrow]
            lost = [
                old.double() @ term.original.T - new @ term.before.T
                for old, new, term in zip(wide, inputs, self.terms, strict=True)
            ]
            targets = [torch.stack([lost[index][:, part.rows] for index in part.terms]).sum(0) for part in self.sums]
            self._halves[half].add(torch.cat(inputs, 1), torch.cat(targets, 1))
        return None

    def fit(self, ridge: float | None) -> None:
        """Set the weights and biases of the smaller model's layer."""
        moments = self._halves[0] + self._halves[1]
        self._solutions = []
        for index, part in enumerate(self.sums):
            problem = self._problem(index)
            solution = moments.solve(problem, choose_ridge(self._halves, problem) if ridge is None else ridge)
            self._solutions.append(solution)
            changes = solution.weights.split([self.terms[index].before.size(1) for index in part.terms], dim=1)
            for term, change in zip((self.terms[index] for index in part.terms), changes, strict=True):
                value = term.before[part.rows] + change
                term.parameter[part.rows] = value.view_as(term.parameter[part.rows]).to(term.parameter.dtype)
            if part.bias is not None:
                value = part.bias.before[part.rows] + solution.constant
                part.bias.parameter[part.rows] = value.to(part.bias.parameter.dtype)

    def errors(self) -> tuple[float, float]:
        """The sums of squared differences without and with the fit, over the samples so far."""
        moments = self._halves[0] + self._halves[1]
        problems = [self._problem(index) for index in range(len(self.sums))]
        after = [moments.error(problem, found) for problem, found in zip(problems, self._solutions, strict=True)]
        return sum(moments.error(problem) for problem in problems), sum(after)

    def _problem(self, index: int) -> Problem:
        part = self.sums[index]
        terms = [self.terms[term] for term in part.terms]
        columns = [torch.arange(self._columns[term].start, self._columns[term].stop) for term in part.terms]
        masked = any(term.allowed is not None for term in terms)
        return Problem(
            columns=torch.cat(columns).to(terms[0].before.device),
            rows=self._outputs[index],
            constant=part.bias is not None,
            allowed=torch.cat([term.mask()[part.rows] for term in terms], dim=1) if masked else None,
        )


class _Plain(Stage):
    """A Linear or convolution: W x + b."""

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        old, new = self.models.pair(self.module)
        for wide, narrow in zip(_products(old, before), _products(new, after), strict=True):
            yield [wide], [narrow]


class _Cell(Stage):
    """One step of a recurrent layer in a loop of the model's own."""

    recurrent = True

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        old, new = self.models.pair(self.module)
        (wide, states), (narrow, own) = cell_inputs(old, before), cell_inputs(new, after)
        kept = self.models.positions(self.terms[1].name, 1)
        yield [wide, states], [narrow, states[:, kept] if forced else own]


class _Layer(Stage):
    """The gates of one layer and direction of a recurrent module."""

    recurrent = True
    index = 0
    """Of the layer and direction, in the order of `h_n`."""

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        wide, narrow = self._runs(before, after)
        states = wide.previous
        own = states[:, self.models.positions(self.terms[1].name, 1)] if forced else narrow.previous
        yield [wide.inputs, states], [narrow.inputs, own]

    def _runs(self, before: Call, after: Call) -> tuple[LayerRun, LayerRun]:
        old, new = self.models.pair(self.module)
        return _run(old, before, self.index), _run(new, after, self.index)


class _Projection(_Layer):
    """`weight_hr` of an LSTM: h = W_hr (o * tanh(c))."""

    recurrent = False

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        wide, narrow = self._runs(before, after)
        yield [wide.projected], [narrow.projected]


def stages(models: Models, name: str) -> Iterator[Stage]:
    """The layers of one module that lost inputs, in the order in which they run; each made when it is asked for."""
    module = models.smaller.get_submodule(name)
    if isinstance(module, nn.RNNCellBase):
        terms = [models.term(name, "weight_ih"), models.term(name, "weight_hh")]
        biases = models.bias(name, "bias_ih"), models.bias(name, "bias_hh")
        yield _Cell(models, name, terms, _gate_sums(terms[0], CELL_GATES[type(module)], *biases))
    elif isinstance(module, nn.RNNBase):
        for index, names in enumerate(layer_names(module)):
            if any((full(name, local), 1) in models.kept for local in (names.weight_ih, names.weight_hh)):
                terms = [models.term(name, names.weight_ih), models.term(name, names.weight_hh)]
                biases = models.bias(name, names.bias_ih), models.bias(name, names.bias_hh)
                layer = _Layer(models, name, terms, _gate_sums(terms[0], gates(module), *biases))
                layer.index = index
                yield layer
            if names.weight_hr is not None and (full(name, names.weight_hr), 1) in models.kept:
                term = models.term(name, names.weight_hr)
                projection = _Projection(models, name, [term], [Sum(slice(0, len(term.before)), (0,), None)])
                projection.index = index
                yield projection
    else:
        term = models.term(name, "weight")
        yield _Plain(models, name, [term], [Sum(slice(0, len(term.before)), (0,), models.bias(name, "bias"))])


def full(module: str, local: str) -> str:
    """The name of a parameter in the model."""
    return f"{module}.{local}" if module else local


def _gate_sums(weight: Term, gate_count: int, bias_ih: Bias | None, bias_hh: Bias | None) -> list[Sum]:
    rows = len(weight.before)
    if gate_count != CELL_GATES[nn.GRUCell]:
        return [Sum(slice(0, rows), (0, 1), bias_ih)]
    new = rows // 3 * 2  # the rows of r and z come first
    return [
        Sum(slice(0, new), (0, 1), bias_ih),
        Sum(slice(new, rows), (0,), bias_ih),
        Sum(slice(new, rows), (1,), bias_hh),
    ]


def _products(module: nn.Module, call: Call) -> Iterator[Tensor]:
    if isinstance(module, nn.Linear):
        yield call.arguments["input"].reshape(-1, module.in_features)
    else:
        yield from patches(module, call)


def _run(module: nn.RNNBase, call: Call, index: int) -> LayerRun:
    runs = unroll(module, *call.arguments.values())
    for _ in range(index):
        next(runs)
    return next(runs)


def _ranges(sizes: Sequence[int]) -> list[slice]:
    """Slices of these sizes, one behind the other."""
    result, start = [], 0
    for size in sizes:
        result.append(slice(start, start + size))
        start += size
    return result
