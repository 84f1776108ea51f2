"""Hands what removed units carried to the kept ones: every consumer's weights are refitted by least squares.

No labels and no gradients; see `docs/compensation.md` for the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.least_squares import Moments, Solution, pattern_cost
from compressor.nn.recurrent import CELL_GATES, gates, layer_names
from compressor.nn.unrolled import LayerRun, unroll
from compressor.report import Skip
from compressor.surgery.calibration import CONVOLUTIONS, Batches, Call, calls, cell_inputs, evaluating, patches

if TYPE_CHECKING:
    from compressor.surgery.atoms import Role

RIDGE = 0.1
"""Weight of the pull towards the weights as they were, relative to the mean variance of the consumer's inputs."""
ROUNDS = 3
"""How often a recurrent layer is fitted: once on the original's states, then on its own too."""
_MOST_MULTIPLICATIONS = 1e11
"""What the solves of one masked matrix may take; about half a minute on one core."""

Kept = Mapping[tuple[str, int], Tensor]


@dataclass(frozen=True)
class Refit:
    """How well one layer's kept inputs give what all inputs gave, on the calibration batches."""

    names: tuple[str, ...]
    """The parameters that were refitted."""
    error_before: float
    """Sum of squared differences of the layer's sums of products (pre-activations), without the refit."""
    error_after: float
    """The same with it; what is left is what the kept units cannot tell."""


@dataclass(frozen=True)
class Compensation:
    """What was refitted and what was not."""

    refits: tuple[Refit, ...]
    skipped: tuple[Skip, ...]


def refit(
    original: nn.Module,
    smaller: nn.Module,
    kept: Kept,
    roles: Mapping[tuple[str, int], Role],
    batches: Batches,
    *,
    masks: Mapping[str, Tensor] | None = None,
    ridge: float = RIDGE,
    rounds: int = ROUNDS,
) -> Compensation:
    r"""Refit every consumer of removed units in `smaller`, in place, in the order in which the model calls them.

    With x' what a consumer is given in the smaller model (its earlier layers refitted already), x what it was given in
    the original, and W' the columns of W that were kept:

    .. math:: \min_{\Delta, c} \sum_t |W x_t - (W' + \Delta) x'_t - c|^2 + \rho\, \bar v\, N\, |\Delta|^2

    Where removed units were 0 always, :math:`\Delta = 0` solves it: the result is that of the removal alone.

    Args:
        original: The model before the removal; left untouched.
        smaller: The model after it, its modules and parameters called as in `original`, on the same device.
        kept: (parameter name, axis) -> boolean mask of the original's positions, True = kept.
        roles: Of the same keys: in layers that are not torch's own, axes with the role `in` are those of consumers.
        batches: Inputs of the model. Steps past the end of a packed sequence do not count, those of a padded one do.
        masks: Masks of the smaller model's weights, by name, True = kept: other weights stay 0.
        ridge: :math:`\rho > 0`, relative to the mean variance :math:`\bar v` of the inputs.
        rounds: How often each recurrent layer is fitted, at least 1.
    """
    consumers = {key[0].rpartition(".")[0]: key[0] for key in kept if _consumes(original, key, roles[key])}
    skipped: list[Skip] = []
    names = []
    for owner, weight in consumers.items():
        reason = _why_not(original, owner, weight)
        if reason is None:
            names.append(owner)
        else:
            skipped.append(Skip(name=weight, reason=f"not refitted: {reason}"))
    refits: list[Refit] = []
    with evaluating(original, smaller):
        counts = _count_calls(original, names, batches)
        skipped += [
            Skip(name=consumers[name], reason="not refitted: its module is not called") for name in names
            if not any(counts.get(name, ()))
        ]  # fmt: skip
        for name in counts:
            for stage in _stages(name, original, smaller, kept, masks or {}):
                reason = stage.obstacle or _observe_and_fit(stage, counts[name], batches, ridge, rounds)
                if reason is None:
                    refits.append(stage.result)
                else:
                    skipped.append(Skip(name=stage.terms[0].name, reason=f"not refitted: {reason}"))
    return Compensation(tuple(refits), tuple(skipped))


def _consumes(model: nn.Module, key: tuple[str, int], role: Role) -> bool:
    """Whether an axis of a parameter takes features in; for layers of torch the layout says so."""
    name, axis = key
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, (nn.Linear, *CONVOLUTIONS, nn.RNNBase, *CELL_GATES)):
        return axis == 1
    return role == "in"


def _why_not(model: nn.Module, owner: str, weight: str) -> str | None:
    module = model.get_submodule(owner)
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS, nn.RNNBase, *CELL_GATES)
    kind = next((kind for kind in kinds if isinstance(module, kind)), None)
    if kind is None or (kind is not nn.RNNBase and type(module).forward is not kind.forward):
        return f"a `{type(module).__name__}` cannot be refitted"
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        return "its channels are in groups"
    if weight.rpartition(".")[2] not in module._parameters:
        return "its weight is computed from other parameters"
    parameter = module.get_parameter(weight.rpartition(".")[2])
    owners = {id(other) for other in model.modules() if any(part is parameter for part in other._parameters.values())}
    return "its weight belongs to other modules too" if len(owners) > 1 else None


def _count_calls(model: nn.Module, names: Sequence[str], batches: Batches) -> dict[str, list[int]]:
    """How often each module is called in each batch, in the order of the first calls."""
    counts: dict[str, list[int]] = {}
    for index, batch in enumerate(batches):
        for name, _ in calls(model, names, batch):
            counts.setdefault(name, [0] * len(batches))[index] += 1
    return counts


# --- what is fitted together ---


@dataclass(frozen=True)
class _Term:
    """One weight W in a sum W x + ..."""

    name: str
    original: Tensor
    """(m, n) float64, the rows that are kept."""
    parameter: nn.Parameter
    """Of the smaller model; (m, n') when flattened."""
    anchor: Tensor
    """Its values before the refit (m, n'), float64."""
    allowed: Tensor | None
    """Mask (m, n') of the weights that may differ from 0, None where all may."""


@dataclass(frozen=True)
class _Block:
    """Rows whose sum has the same terms and the same bias."""

    rows: slice
    terms: tuple[int, ...]
    bias: nn.Parameter | None


class _Stage:
    """One layer: its terms, and the sums over samples that their regression needs."""

    rounds_matter = False
    """Whether the layer's own weights decide what it is given."""

    def __init__(self, name: str, terms: Sequence[_Term], blocks: Sequence[_Block], models: _Models) -> None:
        self.name = name
        self.terms = tuple(terms)
        self.blocks = tuple(blocks)
        self.models = models
        widths = [term.anchor.size(1) for term in terms]
        ends = torch.tensor(widths).cumsum(0).tolist()
        self._columns = [torch.arange(end - width, end) for end, width in zip(ends, widths, strict=True)]
        sizes = [block.rows.stop - block.rows.start for block in blocks]
        stops = torch.tensor(sizes).cumsum(0).tolist()
        self._outputs = [slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]
        self._moments = Moments(sum(widths), sum(sizes), terms[0].anchor.device)
        self._solutions: list[Solution] = []

    @property
    def obstacle(self) -> str | None:
        """Why the stage cannot be solved."""
        cost = sum(pattern_cost(a) for a in map(self._allowed, self.blocks) if a is not None)
        return "its mask has too many patterns" if cost > _MOST_MULTIPLICATIONS else None

    @property
    def result(self) -> Refit:
        """After `solve`."""
        biases = [self.models.name_of(block.bias) for block in self.blocks if block.bias is not None]
        return Refit(
            (*(term.name for term in self.terms), *dict.fromkeys(biases)),
            sum(solution.error_before for solution in self._solutions),
            sum(solution.error_after for solution in self._solutions),
        )

    def pairs(self, before: Call, after: Call, first: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """For each term, what the original and the smaller weight are applied to: (N, n) and (N, n')."""
        raise NotImplementedError

    def observe(self, before: Call, after: Call, *, first: bool) -> str | None:
        """Take one call in both models in; gives a reason where they cannot be compared."""
        for wide, narrow in self.pairs(before, after, first):
            if any(len(a) != len(b) for a, b in zip(wide, narrow, strict=True)):
                return "its inputs have other shapes in the smaller model"
            wide_, narrow_ = [x.double() for x in wide], [x.double() for x in narrow]
            lost = [
                x @ term.original.T - y @ term.anchor.T for x, y, term in zip(wide_, narrow_, self.terms, strict=True)
            ]
            targets = [sum(lost[index][:, block.rows] for index in block.terms) for block in self.blocks]
            self._moments.add(torch.cat(narrow_, 1), torch.cat(targets, 1))  # type: ignore[arg-type]
        return None

    def solve(self, ridge: float) -> None:
        """Set the smaller model's weights and biases."""
        self._solutions = []
        for block, outputs in zip(self.blocks, self._outputs, strict=True):
            columns = torch.cat([self._columns[index] for index in block.terms]).to(self.terms[0].anchor.device)
            solution = self._moments.solve(
                columns, outputs, ridge=ridge, constant=block.bias is not None, allowed=self._allowed(block)
            )
            self._solutions.append(solution)
            parts = solution.weights.split([len(self._columns[index]) for index in block.terms], dim=1)
            for index, change in zip(block.terms, parts, strict=True):
                term = self.terms[index]
                target = term.parameter.view(len(term.anchor), -1)
                target[block.rows] = (term.anchor[block.rows] + change).to(target.dtype)
            if block.bias is not None:
                anchor = self.models.bias_before(block.bias)
                block.bias[block.rows] = (anchor[block.rows] + solution.constant).to(anchor.dtype)

    def _allowed(self, block: _Block) -> Tensor | None:
        if all(self.terms[index].allowed is None for index in block.terms):
            return None
        masks = [self.terms[index] for index in block.terms]
        return torch.cat(
            [
                (torch.ones_like(term.anchor, dtype=torch.bool) if term.allowed is None else term.allowed)[block.rows]
                for term in masks
            ],
            dim=1,
        )


class _Plain(_Stage):
    """A Linear or convolution: y = W x + b."""

    def pairs(self, before: Call, after: Call, first: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        old, new = self.models.pair(self.name)
        for wide, narrow in zip(_products(old, before), _products(new, after), strict=True):
            yield [wide], [narrow]


class _Cell(_Stage):
    """One step of a recurrent layer in a loop of the model's own."""

    rounds_matter = True

    def pairs(self, before: Call, after: Call, first: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        old, new = self.models.pair(self.name)
        (wide, wide_state), (narrow, own) = cell_inputs(old, before), cell_inputs(new, after)
        units = self.models.kept_columns(self.terms[1].name)
        yield [wide, wide_state], [narrow, wide_state[:, units] if first else own]


class _Layer(_Stage):
    """The gates of one layer and direction of a recurrent module."""

    rounds_matter = True
    index = 0

    def pairs(self, before: Call, after: Call, first: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        wide, narrow = self.runs(before, after)
        states = wide.previous
        own = states[:, self.models.kept_columns(self.terms[1].name)] if first else narrow.previous
        yield [wide.inputs, states], [narrow.inputs, own]

    def runs(self, before: Call, after: Call) -> tuple[LayerRun, LayerRun]:
        """This layer in both models."""
        old, new = self.models.pair(self.name)
        return _run(old, before, self.index), _run(new, after, self.index)


class _Projection(_Layer):
    """`weight_hr` of an LSTM: h = W_hr (o * tanh(c))."""

    rounds_matter = False

    def pairs(self, before: Call, after: Call, first: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        wide, narrow = self.runs(before, after)
        yield [wide.projected], [narrow.projected]


def _products(module: nn.Module, call: Call) -> Iterator[Tensor]:
    if isinstance(module, nn.Linear):
        yield call.arguments["input"].reshape(-1, module.in_features)
    else:
        yield from patches(module, call)


def _run(module: nn.Module, call: Call, index: int) -> LayerRun:
    assert isinstance(module, nn.RNNBase)
    runs = unroll(module, *call.arguments.values())
    for _ in range(index):
        next(runs)
    return next(runs)


class _Models:
    """Both models, and what stays of the original's parameters."""

    def __init__(self, original: nn.Module, smaller: nn.Module, kept: Kept, masks: Mapping[str, Tensor]) -> None:
        self._original, self._smaller, self._kept, self._masks = original, smaller, kept, masks
        self._names = {id(parameter): name for name, parameter in smaller.named_parameters()}
        self._biases: dict[int, Tensor] = {}

    def pair(self, name: str) -> tuple[Any, Any]:
        """The module of that name in both."""
        return self._original.get_submodule(name), self._smaller.get_submodule(name)

    def name_of(self, parameter: nn.Parameter) -> str:
        """Of a parameter of the smaller model."""
        return self._names[id(parameter)]

    def kept_columns(self, name: str) -> Tensor:
        """Indices of the positions of axis 1 that stay."""
        return self._positions(name, 1)

    def bias_before(self, bias: nn.Parameter) -> Tensor:
        """A bias as it was when it was first asked for."""
        return self._biases.setdefault(id(bias), bias.detach().clone())

    def bias(self, module: nn.Module, local: str) -> nn.Parameter | None:
        """A bias of the smaller model's module, remembered as it is now."""
        bias = module._parameters.get(local)
        if bias is not None:
            self.bias_before(bias)
        return bias

    def term(self, module: str, local: str) -> _Term:
        """A weight of a module."""
        name = f"{module}.{local}" if module else local
        old, new = (part.get_parameter(local) for part in self.pair(module))
        rows = old.detach()[self._positions(name, 0)]
        mask = self._masks.get(name)
        allowed = None if mask is None or bool(mask.all()) else mask.to(new.device).reshape(len(new), -1)
        anchor = new.detach().reshape(len(new), -1).double()
        return _Term(name, rows.reshape(len(rows), -1).double(), new, anchor.clone(), allowed)

    def _positions(self, name: str, axis: int) -> Tensor:
        parameter = self._original.get_parameter(name)
        mask = self._kept.get((name, axis))
        if mask is None:
            return torch.arange(parameter.size(axis), device=parameter.device)
        return mask.nonzero().flatten().to(parameter.device)


def _stages(
    name: str, original: nn.Module, smaller: nn.Module, kept: Kept, masks: Mapping[str, Tensor]
) -> Iterator[_Stage]:
    """The stages of one module, each made when the one before is done."""
    models = _Models(original, smaller, kept, masks)
    module = smaller.get_submodule(name)
    prefix = f"{name}." if name else ""
    if isinstance(module, nn.RNNCellBase):
        blocks = _gate_blocks(models, module, CELL_GATES[type(module)], ("weight_hh", "bias_ih", "bias_hh"))
        yield _Cell(name, [models.term(name, "weight_ih"), models.term(name, "weight_hh")], blocks, models)
    elif isinstance(module, nn.RNNBase):
        for index, names in enumerate(layer_names(module)):
            if any((prefix + local, 1) in kept for local in (names.weight_ih, names.weight_hh)):
                terms = [models.term(name, names.weight_ih), models.term(name, names.weight_hh)]
                locals_ = (names.weight_hh, names.bias_ih, names.bias_hh)
                stage = _Layer(name, terms, _gate_blocks(models, module, gates(module), locals_), models)
                stage.index = index
                yield stage
            if names.weight_hr is not None and (prefix + names.weight_hr, 1) in kept:
                term = models.term(name, names.weight_hr)
                projection = _Projection(name, [term], [_Block(slice(0, len(term.anchor)), (0,), None)], models)
                projection.index = index
                yield projection
    else:
        term = models.term(name, "weight")
        yield _Plain(name, [term], [_Block(slice(0, len(term.anchor)), (0,), models.bias(module, "bias"))], models)


def _gate_blocks(
    models: _Models, module: nn.Module, count: int, locals_: tuple[str, str | None, str | None]
) -> list[_Block]:
    """In an RNN and an LSTM, W_ih x and W_hh h are added; in a GRU's new gate r stands between them."""
    rows = module.get_parameter(locals_[0]).size(0)
    bias_ih, bias_hh = (None if local is None else models.bias(module, local) for local in locals_[1:])
    if count != 3:
        return [_Block(slice(0, rows), (0, 1), bias_ih)]
    new = rows // 3 * 2
    return [
        _Block(slice(0, new), (0, 1), bias_ih),
        _Block(slice(new, rows), (0,), bias_ih),
        _Block(slice(new, rows), (1,), bias_hh),
    ]


def _observe_and_fit(stage: _Stage, counts: Sequence[int], batches: Batches, ridge: float, rounds: int) -> str | None:
    """Fit a stage in its rounds; gives a reason where it cannot be."""
    for number in range(rounds if stage.rounds_matter else 1):
        for batch, count in zip(batches, counts, strict=True):
            if not count:
                continue
            original, smaller = stage.models._original, stage.models._smaller
            before = calls(original, [stage.name], batch, most=count)
            after = calls(smaller, [stage.name], batch, most=count)
            if len(before) != len(after):
                return "it is called more or less often in the smaller model"
            for (_, old), (_, new) in zip(before, after, strict=True):
                reason = stage.observe(old, new, first=number == 0)
                if reason is not None:
                    return reason
        stage.solve(ridge)
    return None
