"""Cells of the model's own code are found by what comes back to them, and lose units as PyTorch's do."""

import copy

import pytest
import torch
from torch import nn

from compressor.errors import MethodError, SurgeryError
from compressor.methods.magnitude import Magnitude
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.own_cells import find_own_cells
from compressor.surgery.units.removal import prune
from compressor.task.guard import GuardedTask
from compressor.testing import RandomTask, normal
from tests.surgery.own_cells import CLASSES, HIDDEN, INPUT, Elman, Loop, MinGru, OwnCell, ScriptedLayer, models
from tests.surgery.rebuilding import rebuilt_from
from tests.surgery.topologies import CellLoop

EXAMPLES = [(torch.randn(2, 3, INPUT).double(),), (torch.randn(3, 7, INPUT).double(),)]
UNSEEN = torch.randn(5, 9, INPUT).double()
IN_THE_MODEL_ITSELF = ("Sru", "ConvLstm", "Elman")
PYTHON = [name for name in models() if name != "ScriptedLayer"]


def model_of(kind):
    torch.manual_seed(0)
    return models()[kind].double().eval()


@pytest.mark.parametrize("kind", PYTHON)
def test_a_cell_is_found_by_its_feedback(kind):
    found = find_own_cells(model_of(kind), EXAMPLES[0])
    assert {name: cell.units for name, cell in found.items()} == {"" if kind in IN_THE_MODEL_ITSELF else "cell": HIDDEN}


@pytest.mark.parametrize("kind", PYTHON)
def test_half_of_its_units_go_and_the_record_rebuilds_it(kind):
    model = model_of(kind)
    done = prune(model, {}, EXAMPLES, names=list(find_own_cells(model, EXAMPLES[0])), amount=Amount(ratio=0.5))
    assert done.model.head.in_features == HIDDEN - HIDDEN // 2
    fresh = rebuilt_from(done, copy.deepcopy(model))
    torch.testing.assert_close(fresh(UNSEEN), done.model(UNSEEN))


def test_the_layers_of_a_cell_are_its_parts_and_others_are_not():
    found = find_own_cells(Elman().double(), EXAMPLES[0])
    assert found[""].parts == ("i2h", "h2h")


class Transposed(OwnCell):
    """A cell that makes its state by a transposed convolution, whose weight has its outputs along the second axis."""

    def __init__(self):
        super().__init__()
        self.x2h, self.h2h = nn.ConvTranspose1d(INPUT, HIDDEN, 1), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x, states):
        return (torch.tanh(self.x2h(x[..., None])[..., 0] + self.h2h(states[0])),)


def test_a_transposed_convolution_is_a_part_too():
    found = find_own_cells(Loop(Transposed()).double(), EXAMPLES[0])
    assert found["cell"].parts == ("cell.x2h", "cell.h2h")


def test_a_loop_over_cells_of_pytorch_has_no_cell_of_its_own():
    example = (torch.randn(2, 3, INPUT), torch.tensor([3, 2]))
    assert find_own_cells(CellLoop(nn.GRUCell), example) == {}


class Siamese(nn.Module):
    """One layer used twice: no state."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(INPUT, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.head(torch.relu(self.layer(x)) * torch.relu(self.layer(x.flip(1))))


def test_a_layer_that_is_used_twice_is_no_cell():
    assert find_own_cells(Siamese().double(), EXAMPLES[0]) == {}


class Sorting(OwnCell):
    """Its state is sorted over the units, so none can go."""

    def __init__(self):
        super().__init__()
        self.x2h, self.h2h = nn.Linear(INPUT, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x, states):
        return (torch.tanh(self.x2h(x) + self.h2h(states[0].sort(-1).values)),)


def test_a_cell_that_cannot_lose_units_is_refused_with_the_line():
    model = Loop(Sorting()).double().eval()
    assert list(find_own_cells(model, EXAMPLES[0])) == ["cell"]
    with pytest.raises(SurgeryError, match=r"`aten::sort` at test_own_cells.py:\d+ compares it with others"):
        prune(model, {}, EXAMPLES, names=["cell"], amount=Amount(ratio=0.5))


def test_a_compiled_script_is_refused_with_the_remedy():
    model = ScriptedLayer().double().eval()
    with pytest.raises(SurgeryError, match=r"compiled by `torch.jit.script`: build the model from its Python code"):
        prune(model, {}, EXAMPLES, names=[""], amount=Amount(ratio=0.5))


class Constants(OwnCell):
    """States from `new_full` of another type's tensor, and a sum with ones of the cell's size."""

    def start(self, x):
        return (torch.ones(3, dtype=torch.float64).new_full((len(x), self.hidden_size), 0.0) * 2,)

    def __init__(self):
        super().__init__()
        self.both = nn.Linear(HIDDEN + INPUT, HIDDEN)

    def forward(self, x, states):
        return (torch.tanh(self.both(torch.cat([states[0], x], 1))) * torch.ones(self.hidden_size).double(),)


def test_constants_of_the_size_of_the_state_shrink_with_it():
    model = Loop(Constants()).double().eval()
    smaller = prune(model, {}, EXAMPLES, names=["cell"], amount=Amount(count=4)).model
    assert smaller.cell.both.weight.shape == (HIDDEN - 4, HIDDEN - 4 + INPUT)


class Block(nn.Module):
    """Two layers and what went in."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(HIDDEN, 17), nn.Linear(17, HIDDEN)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Refined(nn.Module):
    """One block that refines its own result four times, as a Transformer that shares its weights."""

    def __init__(self, cell=None):
        super().__init__()
        self.enter, self.block, self.head = nn.Linear(INPUT, HIDDEN), Block(), nn.Linear(HIDDEN, CLASSES)
        self.cell = cell

    def forward(self, x):
        if self.cell is not None:
            states, outputs = self.cell.start(x), []
            for step in x.unbind(1):
                states = self.cell(step, states)
                outputs.append(states[0])
            x = torch.stack(outputs, 1)
        else:
            x = self.enter(x)
        for _ in range(4):
            x = self.block(x)
        return self.head(x)


@pytest.mark.parametrize(("cell", "found"), [(None, []), (MinGru(), ["cell"])])
def test_a_block_that_is_called_again_and_again_is_no_cell(cell, found):
    model = Refined(cell).double().eval()
    assert "block" in find_own_cells(model, EXAMPLES[0])  # by its feedback alone
    assert list(find_own_cells(model, EXAMPLES[0], EXAMPLES[1])) == found


@pytest.mark.parametrize("kind", PYTHON)
def test_a_cell_runs_more_often_if_there_are_more_positions(kind):
    assert len(find_own_cells(model_of(kind), *EXAMPLES)) == 1


def test_without_targets_a_block_is_not_chosen():
    timed = {0: "batch", 1: "time"}
    model = Refined().eval()
    task = GuardedTask(RandomTask({"x": timed}, {"y": timed}, normal(INPUT), model), __file__)
    with pytest.raises(MethodError, match="no recurrent layer"):
        Magnitude(prune="units", ratio=0.5).check_task(model, task)
