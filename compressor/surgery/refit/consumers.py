"""The layers that take features in, as sums of products W x + ... + b whose weights can be fitted anew.

A Linear or convolution is one sum. In an RNN and an LSTM every gate is W_ih x_t + W_hh h_{t-1} + b, fitted as one. In a
GRU so are r and z, but in the new gate n = tanh(W_in x + b_in + r * (W_hn h + b_hn)) each part is a sum of its own.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor, nn

from compressor.nn.names import full_name
from compressor.nn.recurrent.layers import LAYERS, RECURRENT, is_layer, is_step_module, parts
from compressor.nn.recurrent.replay import LayerRun, unroll
from compressor.surgery.refit.calibration import CONVOLUTIONS, Call, patches, step_inputs
from compressor.surgery.refit.stage import Stage
from compressor.surgery.refit.terms import Models, Sum, Term

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.nn.recurrent.layers import Part

CONSUMERS: tuple[type[nn.Module], ...] = (nn.Linear, *CONVOLUTIONS, *RECURRENT)
"""Axis 1 of their weights takes features in."""


def why_not(model: nn.Module, name: str) -> str | None:
    """Why the weight of that name cannot be fitted anew; None if it can."""
    owner, _, local = name.rpartition(".")
    module = model.get_submodule(owner)
    kind = next((kind for kind in CONSUMERS if isinstance(module, kind)), None)
    if kind is None or (kind not in LAYERS and type(module).forward is not kind.forward):
        return f"a `{type(module).__name__}` cannot be refitted"
    if isinstance(module, CONVOLUTIONS) and module.groups > 1:
        return "its channels are in groups"
    parameter = module._parameters.get(local)
    if parameter is None:
        return "it is computed from other parameters"
    owners = {id(other) for other in model.modules() if any(part is parameter for part in other._parameters.values())}
    return "it belongs to other modules too" if len(owners) > 1 else None


class _Plain(Stage):
    """A Linear or convolution: W x + b."""

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        old, new = self.models.pair(self.module)
        for wide, narrow in zip(_products(old, before), _products(new, after), strict=True):
            yield [wide], [narrow]


class _StepModule(Stage):
    """One step of a recurrent layer in a loop of the model's own."""

    recurrent = True

    def pairs(self, before: Call, after: Call, *, forced: bool) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        old, new = self.models.pair(self.module)
        (wide, states), (narrow, own) = step_inputs(old, before), step_inputs(new, after)
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
    if is_step_module(module):
        yield _StepModule(models, name, *_gates(models, name, parts(module)[0]))
    elif is_layer(module):
        for index, part in enumerate(parts(module)):
            yield from _stages_of_part(models, name, part, index)
    else:
        term = models.term(name, "weight")
        yield _Plain(models, name, [term], [Sum(slice(0, len(term.before)), (0,), models.bias(name, "bias"))])


def _stages_of_part(models: Models, name: str, part: Part, index: int) -> Iterator[Stage]:
    """The gates and the projection of one layer and direction, if they lost inputs."""
    if any((full_name(name, part.names[key]), 1) in models.kept for key in ("weight_ih", "weight_hh")):
        layer = _Layer(models, name, *_gates(models, name, part))
        layer.index = index
        yield layer
    local = part.names.get("weight_hr")
    if local is not None and (full_name(name, local), 1) in models.kept:
        term = models.term(name, local)
        projection = _Projection(models, name, [term], [Sum(slice(0, len(term.before)), (0,), None)])
        projection.index = index
        yield projection


def _gates(models: Models, name: str, part: Part) -> tuple[list[Term], list[Sum]]:
    """The two weights of a part, and its gates as sums of them: gates in a row that are alike are one sum."""
    terms = [models.term(name, part.names[key]) for key in ("weight_ih", "weight_hh")]
    bias_ih, bias_hh = (models.bias(name, part.names.get(key)) for key in ("bias_ih", "bias_hh"))
    gates = part.cell.gates
    size = len(terms[0].before) // gates.count
    sums: list[Sum] = []
    for scaled, group in groupby(range(gates.count), key=lambda place: gates.gates[place].state_scaled):
        places = list(group)
        rows = slice(places[0] * size, (places[-1] + 1) * size)
        sums += [Sum(rows, (0,), bias_ih), Sum(rows, (1,), bias_hh)] if scaled else [Sum(rows, (0, 1), bias_ih)]
    return terms, sums


def _products(module: nn.Module, call: Call) -> Iterator[Tensor]:
    if isinstance(module, nn.Linear):
        yield call.arguments["input"].reshape(-1, module.in_features)
    else:
        yield from patches(module, call)


def _run(module: RecurrentLayer, call: Call, index: int) -> LayerRun:
    runs = unroll(module, *call.arguments.values())
    for _ in range(index):
        next(runs)
    return next(runs)
