"""Rules for whole modules: what a recurrent layer, a cell or a layer normalisation does with the units around it.

While a model is traced, the `forward` of these modules runs as one step, and its rule says how the atoms of its inputs,
parameters, outputs and states hang together.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import SurgeryError
from compressor.nn.forwards import replaced_forwards
from compressor.nn.names import full_name
from compressor.nn.own_code import has_own_forward
from compressor.nn.own_norm import own_norm
from compressor.nn.recurrent.layers import LAYERS, STEP_MODULES, Part, directions, parts
from compressor.surgery.trace.norms import NORMS, follow_own
from compressor.surgery.trace.products import join_inner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from compressor.nn.recurrent.cells import Axis, RecurrentLayer, StepModule
    from compressor.surgery.trace.atoms import Ids
    from compressor.surgery.trace.state import Trace


@contextmanager
def watched_modules(trace: Trace) -> Iterator[None]:
    """Within the block, the rules run after PyTorch's own `forward`.

    What counts is that PyTorch's `forward` is *called*: a subclass with a `forward` of its own is followed through its
    code, and its call of `super().forward` is the layer.
    """
    names = {id(module): name for name, module in trace.model.named_modules()}
    own = {type(module) for module in trace.model.modules() if has_own_forward(module) and own_norm(module) is not None}
    rules: dict[type[nn.Module], Any] = {kind: partial(_watched, trace, names, rule) for kind, rule in _RULES.items()}
    with replaced_forwards(rules | dict.fromkeys(own, partial(_watched_norm, trace, names))):
        yield


def _watched_norm(trace: Trace, names: Mapping[int, str], original: Callable[..., Any]) -> Callable[..., Any]:
    """A normalisation of the model's own code; with more than one argument it is followed through its code."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        name, given = names.get(id(self)), [*args, *kwargs.values()]
        form = None if name is None or trace.paused or len(given) != 1 else own_norm(self)
        if name is None or form is None:
            return original(self, *args, **kwargs)
        with trace.pause():
            result = original(self, *args, **kwargs)
            trace.alive.append((given, result))
            follow_own(trace, name, form, given[0], result)
        return result

    return forward


def _watched(
    trace: Trace, names: Mapping[int, str], rule: Callable[..., None], original: Callable[..., Any]
) -> Callable[..., Any]:
    def forward(self: nn.Module, input: Any, hx: Any = None) -> Any:  # noqa: A002 the layer's own argument name
        call = (self, input) if hx is None else (self, input, hx)
        name = names.get(id(self))
        if name is None or trace.paused:
            return original(*call)
        with trace.pause():
            result = original(*call)
            trace.called.add(name)
            trace.alive.append((input, hx, result))
            rule(trace, name, self, input, _states(hx), result)
        return result

    return forward


def _states(hx: Any) -> tuple[Tensor, ...]:
    if hx is None:
        return ()
    return tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)


def _recurrent(
    trace: Trace,
    name: str,
    module: RecurrentLayer,
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
    every, count = parts(module), directions(module)
    bound = [_bind(trace, name, module, part) for part in every]
    for part in every:
        local = part.names["weight_ih"]
        weight = module.get_parameter(local)
        if part.layer == 0:
            consume(trace, data_in, full_name(name, local), weight)
        else:
            below = _outputs(bound[(part.layer - 1) * count : part.layer * count])
            trace.atoms.join(below, trace.atoms.axis(full_name(name, local), 1, weight.size(1), "in"))
    trace.write(data_out, torch.from_numpy(_outputs(bound[-count:])).expand(data_out.size()))
    carried = [np.stack([part[kind] for part in bound]) for kind in ("outputs", "units")]
    for state, ids in zip(_states(states), carried, strict=False):
        trace.write(state, _labels(ids, state).expand(state.size()))
    for state, ids in zip(given, carried, strict=False):
        _join_initial_state(trace, name, state, _labels(ids, state))


def _labels(ids: Ids, state: Tensor) -> Tensor:
    """Atoms (L * D, H) as labels of a state (L * D, B, H) or (L * D, H)."""
    labels = torch.from_numpy(ids)
    return labels.unsqueeze(1) if state.dim() == 3 else labels


def _outputs(bound: Sequence[Mapping[Axis, Ids]]) -> Ids:
    """What the directions of a layer give out, side by side."""
    return np.concatenate([part["outputs"] for part in bound])


def _step_module(
    trace: Trace, name: str, module: StepModule, inputs: Tensor, given: Sequence[Tensor], result: Any
) -> None:
    """One step of one layer; the states that come back carry its units into the next step."""
    [part] = parts(module)
    units = torch.from_numpy(_bind(trace, name, module, part)["units"])
    consume(trace, inputs, full_name(name, part.names["weight_ih"]), module.weight_ih)
    for state in _states(result):
        trace.write(state, units.expand(state.size()))
    for state in given:
        _join_initial_state(trace, name, state, units)


def consume(trace: Trace, data: Tensor, weight_name: str, weight: Tensor) -> None:
    """Join the features of `data` (..., K) with the input positions of a weight (O, K)."""
    consumed = trace.atoms.axis(weight_name, 1, weight.size(1), "in")
    labels = trace.read(data)
    if labels is not None:
        flat = labels.reshape(-1, data.size(-1))
        join_inner(trace, data.reshape(flat.size()), flat, weight.t(), torch.from_numpy(consumed)[None])


def _join_initial_state(trace: Trace, name: str, state: Tensor, expected: Tensor) -> None:
    labels = trace.read(state)
    if labels is None:
        labels = trace.label_input(state)
    expected = expected.expand(state.size())
    if labels is not None:
        trace.atoms.join(labels.numpy(), expected.numpy())
        alone = expected[labels == 0]
        trace.atoms.pin(alone.numpy(), f"the initial state of `{name}` is partly of fixed size")
    elif bool((state != 0).any()):
        trace.atoms.pin(expected.numpy(), f"the initial state of `{name}` is given from outside with a fixed size")


def _bind(trace: Trace, name: str, module: nn.Module, part: Part) -> dict[Axis, Ids]:
    """Bind the units of a part to the axes of its parameters that hold them; gives the atoms of each kind of axis."""
    atoms, key = trace.atoms, (name, part.layer, part.direction)
    projection = part.names.get("weight_hr")
    if key not in trace.units:
        _refuse_shared(trace, name, module, part.names["weight_hh"])
        units = trace.units[key] = atoms.new(module.hidden_size)  # type: ignore[arg-type]
        _bind_axes(trace, name, module, part, {"gates": np.tile(units, part.cell.gates.count)})
        outputs = units
        if projection is not None:
            outputs = atoms.axis(full_name(name, projection), 0, module.proj_size, "out")  # type: ignore[arg-type]
            atoms.join(outputs, atoms.axes[full_name(name, "weight_hr_l0"), 0])  # all parts have one `proj_size`
        _bind_axes(trace, name, module, part, {"units": units, "outputs": outputs})
    units = trace.units[key]
    outputs = units if projection is None else atoms.axes[full_name(name, projection), 0]
    return {"units": units, "outputs": outputs}


def _bind_axes(trace: Trace, name: str, module: nn.Module, part: Part, ids: Mapping[Axis, Ids]) -> None:
    for parameter in part.cell.parameters:
        local = part.names.get(parameter.name, "")
        if module._parameters.get(local) is None:
            continue
        for axis, kind in enumerate(parameter.axes):
            if kind in ids:
                trace.atoms.bind(full_name(name, local), axis, ids[kind], "in" if axis else "out")


def _refuse_shared(trace: Trace, name: str, module: nn.Module, local: str) -> None:
    canonical = trace.parameter_name(module.get_parameter(local))
    if canonical != full_name(name, local):
        raise SurgeryError(
            f"`{name}` shares its weights with `{canonical}`",
            hint="name it under `ignore`; tied recurrent layers are not handled yet",
        )


_RULES: dict[type[nn.Module], Any] = {
    **dict.fromkeys(LAYERS, _recurrent),
    **dict.fromkeys(STEP_MODULES, _step_module),
    **NORMS,
}
