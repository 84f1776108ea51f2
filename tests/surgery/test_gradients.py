"""What is left learns on as before: its gradients are those of the original with the removed units dead."""

import numpy as np
import pytest
import torch

from compressor.measure import size
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.planning import make_plan
from compressor.surgery.units.removal import prune
from compressor.surgery.units.resize import tensor_of
from tests.surgery.topologies import (
    CELL_KINDS,
    CELLS,
    HIDDEN,
    INPUT,
    SUPPORTED,
    Bidirectional,
    BothLastStates,
    CellLoop,
    Stacked,
    Streaming,
)
from tests.tolerances import SAME_GRADIENT

UNEVEN = [Stacked, Bidirectional, BothLastStates]


def _random_scores(model, tracer):
    return np.random.default_rng(7).random(tracer.atoms.count)


def _example(topology, cell, batch, length):
    generator = torch.Generator().manual_seed(batch)
    count = 0 if topology is not Streaming else 2 if cell == "lstm" else 1
    return (
        torch.randn(batch, length, INPUT, generator=generator, dtype=torch.float64),
        torch.randint(1, length + 1, (batch,), generator=generator),
        *torch.randn(count, 2, batch, HIDDEN, generator=generator, dtype=torch.float64),
    )


def _with_dead_units(plan):
    """The original, everything at the removed positions 0: what makes the units, and what takes them in."""
    with torch.no_grad():
        for (name, axis), mask in plan.kept.items():
            tensor_of(plan.model, name).index_fill_(axis, (~mask).nonzero().flatten(), 0.0)
    return plan.model


def _gradients(model, inputs, cuts=()):
    """Gradients of a random weighted sum of the outputs, by parameters and by inputs."""
    inputs = [part.clone().requires_grad_(part.is_floating_point()) for part in inputs]
    outputs = model(*inputs)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    for cut in cuts:
        outputs[cut.index] = cut(outputs[cut.index])
    torch.manual_seed(5)
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}, [part.grad for part in inputs]


def _model(topology, cell):
    return topology((CELL_KINDS if topology is CellLoop else CELLS)[cell]).double().eval()


def _check(topology, cell, amount):
    torch.manual_seed(0)
    model = _model(topology, cell)
    names = ["rnn"] if topology is CellLoop else list(recurrent_modules(model))
    example = _example(topology, cell, 2, 3)
    smaller = prune(model, {}, [example], names=names, amount=amount, scorer=_random_scores).model
    plan = make_plan(model, {}, example, names, amount, _random_scores, names)
    inputs = _example(topology, cell, 5, 7)
    silenced = list(inputs)
    for cut in plan.edges.inputs:
        silenced[cut.index] = cut.silence(silenced[cut.index])
    expected, expected_inputs = _gradients(_with_dead_units(plan), silenced, plan.edges.outputs)
    found, found_inputs = _gradients(smaller, inputs)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        wanted = expected[name]
        for (parameter, axis), mask in plan.kept.items():
            if parameter == name:
                wanted = wanted.index_select(axis, mask.nonzero().flatten())
        torch.testing.assert_close(gradient, wanted, **SAME_GRADIENT)
    assert any(gradient.any() for gradient in found.values())
    for index, (gradient, wanted) in enumerate(zip(found_inputs, expected_inputs, strict=True)):
        for cut in plan.edges.inputs:
            if cut.index == index:
                gradient, wanted = cut(gradient), cut(wanted)  # noqa: PLW2901
        if wanted is not None:
            torch.testing.assert_close(gradient, wanted, **SAME_GRADIENT)
    return smaller


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("topology", [*SUPPORTED, Streaming, CellLoop], ids=lambda t: t.__name__)
def test_gradients_are_those_of_the_original_with_dead_units(topology, cell):
    smaller = _check(topology, cell, Amount(ratio=0.5))
    assert size.count(smaller)[0] < size.count(_model(topology, cell))[0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("topology", UNEVEN, ids=lambda t: t.__name__)
def test_gradients_agree_where_layers_end_with_different_sizes(topology, cell):
    smaller = _check(topology, cell, Amount(ratio=0.4, scope="global"))
    assert isinstance(smaller.rnn, UnevenRecurrent)
