"""The equations of every cell against PyTorch's own modules, with gradients, at odd sizes, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.nn.recurrent.cells import CELLS
from compressor.nn.recurrent.layers import cell_of, parts, state_widths
from tests.tolerances import SAME_FLOAT64, SAME_GRADIENT

INPUT, HIDDEN, PROJECTED, BATCH, LENGTH = 5, 13, 7, 3, 11
MODES = list(CELLS)


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def unrolled(module, x, states):
    """A one-layer module step by step: the naive loop over the cell's equations."""
    (part,) = parts(module)
    outputs = []
    for position in x:
        states = part.cell.step(position, states, part.weights(module))
        outputs.append(states[0])
    return [torch.stack(outputs), *(state[None] for state in states)]


def assert_same(found, expected, leaves):
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    gradients = [torch.autograd.grad(sum(part.sin().sum() for part in parts), leaves) for parts in (found, expected)]
    torch.testing.assert_close(*gradients, **SAME_GRADIENT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_one_step_and_its_gradients_are_those_of_pytorch(mode, bias):
    torch.manual_seed(0)
    cell = CELLS[mode]
    module = cell.step_type(INPUT, HIDDEN, bias, **cell.options).double()
    x, states = normal(BATCH, INPUT), [normal(BATCH, HIDDEN) for _ in cell.states]
    (part,) = parts(module)
    found = cell.step(x, states, part.weights(module))
    assert_same(found, cell.unpack(module(x, cell.pack(states))), [x, *states, *module.parameters()])


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"proj_size": PROJECTED}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_a_loop_over_the_equations_gives_pytorchs_sequence_with_its_gradients(mode, options):
    if "proj_size" in options and mode != "LSTM":
        options = {}
    torch.manual_seed(0)
    cell = CELLS[mode]
    module = cell.layer(INPUT, HIDDEN, **options).double()
    x, states = normal(LENGTH, BATCH, INPUT), [normal(BATCH, width) for width in state_widths(module)]
    output, last = module(x, cell.pack([state[None] for state in states]))
    assert_same(unrolled(module, x, states), [output, *cell.unpack(last)], [x, *states, *module.parameters()])


@pytest.mark.parametrize("mode", MODES)
def test_pytorchs_function_for_sequences_runs_with_weights_by_name(mode):
    torch.manual_seed(0)
    cell = CELLS[mode]
    module = cell.layer(INPUT, HIDDEN).double()
    x, states = normal(LENGTH, BATCH, INPUT), [normal(1, BATCH, HIDDEN) for _ in cell.states]
    (part,) = parts(module)
    torch.testing.assert_close(cell.run(x, states, part.weights(module)), module(x, cell.pack(states))[0])


@pytest.mark.parametrize("mode", MODES)
def test_every_module_is_known_by_its_cell_also_as_a_subclass(mode):
    cell = CELLS[mode]
    subclass = type("Own", (cell.layer_type,), {})
    modules = [cell.layer(INPUT, HIDDEN), cell.step_type(INPUT, HIDDEN, **cell.options)]
    assert [cell_of(module) for module in (*modules, subclass(INPUT, HIDDEN, **cell.options))] == [cell] * 3


def test_a_module_of_another_kind_has_no_cell():
    with pytest.raises(TypeError, match="`Linear` is not a recurrent module"):
        cell_of(nn.Linear(INPUT, HIDDEN))


def test_parts_follow_the_order_of_the_last_states_and_name_what_the_module_has():
    module = nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True, bias=False, proj_size=PROJECTED)
    found = parts(module)
    assert [(part.layer, part.direction) for part in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(found[3].names.values()) == ["weight_ih_l1_reverse", "weight_hh_l1_reverse", "weight_hr_l1_reverse"]
    assert list(found[1].weights(module)) == ["weight_ih", "weight_hh", "weight_hr"]


@pytest.mark.parametrize("options", [{}, {"proj_size": PROJECTED}], ids=str)
def test_the_axes_of_every_parameter_have_the_sizes_that_they_claim(options):
    module = nn.LSTM(INPUT, HIDDEN, **options)
    sizes = {"gates": 4 * HIDDEN, "units": HIDDEN, "outputs": options.get("proj_size", HIDDEN), "inputs": INPUT}
    (part,) = parts(module)
    for parameter in part.cell.parameters:
        if parameter.name in part.names:
            assert part.weights(module)[parameter.name].shape == tuple(sizes[axis] for axis in parameter.axes)
