"""Rules for whole modules: what a recurrent layer, a cell or a layer normalisation does with the units around it.

While a model is traced, the `forward` of these modules runs as one step, and its rule says how the atoms of its inputs,
parameters, outputs and states hang together.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import SurgeryError
from compressor.nn.names import full_name
from compressor.nn.norm import WideLayerNorm
from compressor.nn.recurrent.gates import CELL_GATES, directions, gates, layer_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.tracer import Tracer


@contextmanager
def wrapped_modules(tracer: Tracer) -> Iterator[None]:
    """Let the rules stand in front of the modules' own `forward` while this lasts."""
    wrapped = []
    try:
        for name, module in tracer.model.named_modules():
            for kind, rule in _RULES.items():
                if isinstance(module, kind):
                    module.forward = _watched(tracer, name, module, rule)
                    wrapped.append(module)
                    break
        yield
    finally:
        for module in wrapped:
            del module.forward


def _watched(tracer: Tracer, name: str, module: nn.Module, rule: Callable[..., None]) -> Callable[..., Any]:
    original = module.forward

    def forward(inputs: Tensor | PackedSequence, hx: Any = None) -> Any:
        with tracer.pause():
            result = original(inputs) if hx is None else original(inputs, hx)
            tracer.called.add(name)
            tracer.alive.append((inputs, hx, result))
            rule(tracer, name, module, inputs, _states(hx), result)
        return result

    return forward


def _states(hx: Any) -> tuple[Tensor, ...]:
    if hx is None:
        return ()
    return tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)


def _recurrent(
    tracer: Tracer,
    name: str,
    module: nn.RNNBase,
    inputs: Tensor | PackedSequence,
    given: Sequence[Tensor],
    result: tuple[Any, Any],
) -> None:
    """Inputs feed layer 0, each layer the next one, the last the output.

    `h_n` holds the outputs' units of each layer and direction, `c_n` the cells' (the same units without a projection);
    initial states likewise.
    """
    output, states = result
    data_in = inputs.data if isinstance(inputs, PackedSequence) else inputs
    data_out = output.data if isinstance(output, PackedSequence) else output
    cells, outs = _bind_layers(tracer, name, module)
    count = directions(module)
    for index, names in enumerate(layer_names(module)):
        weight = module.get_parameter(names.weight_ih)
        if index < count:
            consume(tracer, data_in, full_name(name, names.weight_ih), weight)
        else:
            layer = index // count
            below = np.concatenate(outs[(layer - 1) * count : layer * count])
            tracer.atoms.join(below, tracer.atoms.axis(full_name(name, names.weight_ih), 1, weight.size(1), "in"))
    top = torch.from_numpy(np.concatenate(outs[-count:]))
    tracer.write(data_out, top.expand(data_out.size()))
    for state, ids in zip(_states(states), (outs, cells), strict=False):
        labels = torch.from_numpy(np.stack(ids))
        tracer.write(state, (labels.unsqueeze(1) if state.dim() == 3 else labels).expand(state.size()))
    for state, ids in zip(given, (outs, cells), strict=False):
        labels = torch.from_numpy(np.stack(ids))
        _join_initial_state(tracer, name, state, labels.unsqueeze(1) if state.dim() == 3 else labels)


def _cell(
    tracer: Tracer, name: str, module: nn.RNNCellBase, inputs: Tensor, given: Sequence[Tensor], result: Any
) -> None:
    """One step of one layer; the states that come back carry its units into the next step."""
    units = _bind_units(
        tracer, name, module, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), CELL_GATES[type(module)]
    )
    consume(tracer, inputs, full_name(name, "weight_ih"), module.weight_ih)
    for state in _states(result):
        tracer.write(state, torch.from_numpy(units).expand(state.size()))
    for state in given:
        _join_initial_state(tracer, name, state, torch.from_numpy(units))


def _layer_norm(
    tracer: Tracer,
    name: str,
    module: nn.LayerNorm | WideLayerNorm,
    inputs: Tensor,
    given: Sequence[Tensor],
    result: Tensor,
) -> None:
    """The statistics run over all features; what is removed counts on as zeros (see `WideLayerNorm`)."""
    labels = tracer.read(inputs)
    if labels is None:
        return
    rows = labels.reshape(-1, labels.size(-1))
    if len(module.normalized_shape) != 1 or bool((rows != rows[:1]).any()):
        tracer.atoms.pin(labels.numpy(), f"`{name}` takes its mean over it and others")
        return
    positions = rows[0].numpy()
    tracer.norms[name] = positions
    for local, parameter in (("weight", module.weight), ("bias", module.bias)):
        if parameter is not None:
            tracer.atoms.join(tracer.atoms.axis(full_name(name, local), 0, parameter.numel(), "out"), positions)
    tracer.write(result, labels)


def consume(tracer: Tracer, data: Tensor, weight_name: str, weight: Tensor) -> None:
    """Join the features of `data` (..., K) with the input positions of a weight (O, K)."""
    consumed = tracer.atoms.axis(weight_name, 1, weight.size(1), "in")
    labels = tracer.read(data)
    if labels is not None:
        flat = labels.reshape(-1, data.size(-1))
        tracer.join_inner(data.reshape(flat.size()), flat, weight.t(), torch.from_numpy(consumed)[None])


def _join_initial_state(tracer: Tracer, name: str, state: Tensor, expected: Tensor) -> None:
    labels = tracer.read(state)
    if labels is None:
        labels = tracer.label_input(state)
    expected = expected.expand(state.size())
    if labels is not None:
        tracer.atoms.join(labels.numpy(), expected.numpy())
        alone = expected[labels == 0]
        tracer.atoms.pin(alone.numpy(), f"the initial state of `{name}` is partly of fixed size")
    elif bool((state != 0).any()):
        tracer.atoms.pin(expected.numpy(), f"the initial state of `{name}` is given from outside with a fixed size")


def _bind_layers(tracer: Tracer, name: str, module: nn.RNNBase) -> tuple[list[Ids], list[Ids]]:
    """The atoms of the cells and of the outputs (the same without a projection), layer by layer."""
    cells, outs = [], []
    for names in layer_names(module):
        locals_ = (names.weight_ih, names.weight_hh, names.bias_ih, names.bias_hh)
        key = (names.layer, names.direction)
        projection = names.weight_hr
        units = _bind_units(tracer, name, module, locals_, gates(module), key, projection)
        cells.append(units)
        outs.append(units if projection is None else tracer.atoms.axes[full_name(name, projection), 0])
    return cells, outs


def _bind_units(
    tracer: Tracer,
    name: str,
    module: Any,
    parameters: Sequence[str | None],
    blocks: int,
    layer: tuple[int, int] = (0, 0),
    projection: str | None = None,
) -> Ids:
    """The atoms of the units of one layer, bound to its gate rows, its recurrent columns and its biases."""
    key = (name, *layer)
    if key in tracer.units:
        return tracer.units[key]
    weight_ih, weight_hh, *biases = parameters
    assert weight_ih is not None
    assert weight_hh is not None
    canonical = tracer.parameter_name(module.get_parameter(weight_hh))
    if canonical != full_name(name, weight_hh):
        raise SurgeryError(
            f"`{name}` shares its weights with `{canonical}`",
            hint="name it under `ignore`; tied recurrent layers are not handled yet",
        )
    atoms = tracer.atoms
    units = tracer.units[key] = atoms.new(module.hidden_size)
    rows = np.tile(units, blocks)
    for local in (weight_ih, weight_hh, *biases):
        if local is not None and module._parameters.get(local) is not None:
            atoms.bind(full_name(name, local), 0, rows, "out")
    if projection is None:
        atoms.bind(full_name(name, weight_hh), 1, units, "in")
    else:
        projected = atoms.axis(full_name(name, projection), 0, module.proj_size, "out")
        atoms.bind(full_name(name, projection), 1, units, "in")
        atoms.bind(full_name(name, weight_hh), 1, projected, "in")
    return units


_RULES: dict[type[nn.Module], Any] = {
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _cell,
    nn.LayerNorm: _layer_norm,
    WideLayerNorm: _layer_norm,
}
