"""Sizes that a model's own code keeps as numbers are set so that the smaller model agrees, and no others."""

import copy

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.surgery.rebuild import rebuild
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.surgery.units.sizes import apply_sizes_record

WIDTH = 7


class Numbered(nn.Module):
    """Three numbers of the same value: the number of units, the number of features, and a number of steps."""

    def __init__(self):
        super().__init__()
        self.units = self.features = self.steps = WIDTH
        self.rnn, self.head = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, 3)

    def forward(self, x):
        y = self.rnn(x.reshape(len(x), -1, self.features))[0][:, : self.steps]
        return self.head(y.reshape(-1, self.units))


class Fixed(Numbered):
    """A number in the code."""

    def forward(self, x):
        return self.head(self.rnn(x)[0].reshape(-1, 7))


def examples():
    return [(torch.randn(2, 9, WIDTH).double(),), (torch.randn(3, 11, WIDTH).double(),)]


def removed(model):
    return prune(model.double().eval(), {}, examples(), names=["rnn"], amount=Amount(count=3))


def test_only_the_number_that_is_the_size_is_set():
    done = removed(Numbered())
    assert (done.model.units, done.model.features, done.model.steps) == (WIDTH - 3, WIDTH, WIDTH)
    assert done.notes == (f"`units` is {WIDTH - 3} now, {WIDTH} before",)


def test_the_record_sets_it_in_a_fresh_model():
    model = Numbered()
    done = removed(copy.deepcopy(model))
    fresh = rebuild(model.double().eval(), done.structure)
    fresh.load_state_dict(done.model.state_dict())
    torch.testing.assert_close(fresh(*examples()[0]).shape, done.model(*examples()[0]).shape)


def test_a_number_in_the_code_is_refused_with_its_line_and_nothing_is_changed():
    model = Fixed()
    before = {name: value for name, value in vars(model).items() if type(value) is int}
    with pytest.raises(SurgeryError, match=r"the smaller model cannot run: .*test_sizes.py:\d+"):
        removed(model)
    assert before == {name: value for name, value in vars(model).items() if type(value) is int}


@pytest.mark.parametrize("sizes", [{"training": 1}, {"units": WIDTH + 1}, {"units": 0}, {"rnn.other": 3}, {"no.x": 1}])
def test_a_record_sets_nothing_but_numbers_that_are_there_to_smaller_ones(sizes):
    with pytest.raises(CheckpointError, match="does not fit the model"):
        apply_sizes_record(Numbered(), {"kind": "sizes", "sizes": sizes})
