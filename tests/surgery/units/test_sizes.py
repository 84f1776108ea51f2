"""Sizes that a model's own code keeps as numbers are set so that the smaller model agrees, and no others."""

import copy

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.surgery.units.sizes import apply_sizes_record, fit_sizes
from tests.surgery.rebuilding import rebuilt_from

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
    fresh = rebuilt_from(done, model.double().eval())
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


class Inner(nn.Module):
    """Numbers that a test decides on, beside a weight."""

    def __init__(self, shape=(12, 5), **numbers):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape))
        for name, value in numbers.items():
            setattr(self, name, value)


class Other(Inner):
    pass


def tried(model, kept, wanted):
    """What is set, and all that was tried; the model agrees if its numbers are the wanted ones."""
    seen = []

    def numbers():
        return {
            f"{name}.{key}".removeprefix("."): value
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if type(value) is int
        }

    before = numbers()

    def check():
        seen.append({key: value for key, value in numbers().items() if value != before[key]})
        if seen[-1] != wanted:
            raise SurgeryError(f"try {len(seen)}")

    try:
        sizes = fit_sizes(model, kept, check)
    except SurgeryError as error:
        assert numbers() == before
        return error.message, seen
    assert {key: value for key, value in numbers().items() if value != before[key]} == wanted
    return {size.name: (size.before, size.after, size.meaning) for size in sizes}, seen


def mask(*kept, size=12):
    found = torch.zeros(size, dtype=torch.bool)
    found[list(kept)] = True
    return found


HALF = {("weight", 0): mask(0, 1, 2, 6, 7, 8)}  # three of each block of six; half of each of four blocks of three
FIRST = {("weight", 0): mask(*range(6))}
"""Whole blocks of 2, 3 and 6."""


@pytest.mark.parametrize(
    ("kept", "numbers", "wanted"),
    [
        (HALF, {"n": 12}, {"n": (12, 6, "axis")}),
        (HALF, {"n": 6}, {"n": (6, 3, "block")}),
        (HALF, {"n": 4}, {"n": (4, 2, "count")}),
        (FIRST, {"n": 4}, {"n": (4, 2, "count")}),
        (FIRST, {"n": 2}, {"n": (2, 1, "count")}),
        (HALF, {"n": 5}, {}),  # divides nothing
        (HALF, {"n": 1}, {}),
        (HALF, {"n": 24}, {}),
        (HALF, {"n": -12}, {}),
        (HALF, {"n": 12.0}, {}),
        (HALF, {"n": True}, {}),
        ({("weight", 0): mask(0, 1, 2, 6)}, {"n": 6}, {}),  # unequal blocks
        ({("weight", 0): mask(0, 1, 6)}, {"n": 4}, {}),  # no whole block of three
        ({("weight", 0): mask(*range(12))}, {"n": 12}, {}),  # nothing went
        ({("other", 0): mask(*range(6))}, {"weight_size": 12}, {"weight_size": (12, 6, "axis")}),
        ({("weight", 0): mask(*range(6)), ("weight", 1): mask(*range(5))}, {"n": 12}, {}),  # of two lengths
    ],
)
def test_what_a_number_may_mean_follows_from_what_was_cut(kept, numbers, wanted):
    model = Inner(**numbers)
    after = {name: left for name, (_, left, _) in wanted.items()}
    found, seen = tried(model, kept, after if wanted else {"never": 0})
    if wanted:
        assert found == wanted
        assert seen == [{}, after]
    else:
        assert seen == [{}]


def test_all_numbers_are_tried_together_before_fewer_and_nothing_first():
    model = Inner(a=12, b=12)
    wanted = {"b": 6}
    found, seen = tried(model, FIRST, wanted)
    assert seen == [{}, {"a": 6, "b": 6}, {"a": 6}, {"b": 6}]
    assert found == {"b": (12, 6, "axis")}
    assert tried(Inner(a=12), FIRST, {})[0] == {}


def test_each_meaning_is_tried_and_the_second_error_is_told():
    kept = {("weight", 0): mask(0, 1, 2, 3), ("weight", 1): mask(0, 2, size=4)}
    model = Inner((12, 4), n=4)  # the size of the second axis, or the number of blocks of three of the first
    message, seen = tried(model, {("weight", 1): mask(0, 2, size=4)}, {"n": 3})
    assert (message, seen) == ("try 2", [{}, {"n": 2}])
    found, seen = tried(Inner((16, 4), n=4), {("weight", 0): mask(0, 1, 4, 5, 8, 9, 12, 13, size=16)}, {"n": 2})
    assert (found, seen) == ({"n": (4, 2, "block")}, [{}, {"n": 2}])
    assert tried(Inner(n=4), kept, {"n": 1})[0] == "try 2"
    assert tried(Inner(n=7), FIRST, {"n": 1})[0] == "try 1"


def test_all_modules_of_a_class_decide_alike_and_others_alone():
    model = nn.ModuleDict({"a": Inner(n=12), "b": Inner(n=12), "c": Other(n=12)})
    kept = {(f"{name}.weight", 0): mask(*range(left)) for name, left in (("a", 6), ("b", 3), ("c", 9))}
    found, seen = tried(model, kept, {"a.n": 6, "b.n": 3})
    assert found == {"a.n": (12, 6, "axis"), "b.n": (12, 3, "axis")}
    assert seen == [{}, {"a.n": 6, "b.n": 3, "c.n": 9}, {"a.n": 6, "b.n": 3}]


def test_no_more_than_64_choices_are_tried():
    message, seen = tried(Inner(**{f"n{index}": 12 for index in range(8)}), FIRST, {"never": 0})
    assert (message, len(seen)) == ("try 2", 64)


@pytest.mark.parametrize("value", [WIDTH, 1])
def test_a_record_may_set_any_smaller_number_and_the_same(value):
    model = Numbered()
    apply_sizes_record(model, {"kind": "sizes", "sizes": {"units": value}})
    assert (model.units, model.features) == (value, WIDTH)


def test_a_record_without_sizes_is_refused():
    with pytest.raises(CheckpointError, match="does not fit the model"):
        apply_sizes_record(Numbered(), {"kind": "sizes", "sizes": [3]})
