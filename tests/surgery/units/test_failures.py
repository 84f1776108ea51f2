"""A layer that cannot lose units is left alone with the reason; the others go on."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.failures import FailedRemoval, without_failing
from compressor.surgery.units.removal import prune

INPUTS, HIDDEN = 3, 12


class Mixed(nn.Module):
    """A layer that follows, one whose size is written into the code, a head of one output and an unused one."""

    def __init__(self):
        super().__init__()
        self.first, self.fixed, self.free = nn.Linear(INPUTS, 8), nn.Linear(8, HIDDEN), nn.Linear(HIDDEN, 6)
        self.single, self.unused = nn.Linear(6, 1), nn.Linear(6, 4)

    def forward(self, x):
        y = torch.relu(self.fixed(torch.relu(self.first(x)))).reshape(-1, HIDDEN)
        return self.single(torch.relu(self.free(y)))


def run(names, required=(), ratio=0.5):
    torch.manual_seed(0)
    model = Mixed().double().eval()
    x = torch.randn(5, INPUTS, dtype=torch.float64)
    return prune(model, {}, [(x,)], names=names, amount=Amount(ratio=ratio), required=required)


def test_under_a_glob_each_is_skipped_with_its_own_reason():
    done = run(["first", "fixed", "free", "single", "unused"])
    assert (done.model.first.out_features, done.model.fixed.out_features, done.model.free.out_features) == (
        4,
        HIDDEN,
        3,
    )
    reasons = {skip.name: skip.reason for skip in done.skipped}
    assert reasons["single"] == "it has one output, which stays"
    assert reasons["unused"].startswith("it is not called in the model's forward pass")
    assert "the smaller model cannot run" in reasons["fixed"]
    assert "test_failures.py" in reasons["fixed"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fixed", "units of `fixed` cannot be removed: the smaller model cannot run"),
        ("single", "`single` has one output, which stays"),
        ("unused", "`unused` is not called in the model's forward pass"),
    ],
)
def test_what_is_named_exactly_is_an_error_that_says_which(name, message):
    with pytest.raises(SurgeryError, match=message) as caught:
        run(["first", name, "free"], required=[name])
    assert f"name `{name}` under `ignore`" in caught.value.hint


def test_nothing_left_is_an_error_with_all_reasons():
    with pytest.raises(SurgeryError, match=r"nothing can be removed \(`single`: it has one output.*; `unused`: it is"):
        run(["single", "unused"])


def attempt(bad, pairs=()):
    def run(names):
        if bad & set(names) or any(set(pair) <= set(names) for pair in pairs):
            raise FailedRemoval("wrong")
        return tuple(names)

    return run


@pytest.mark.parametrize("bad", [{"a"}, {"c"}, {"a", "e"}, {"b", "c", "d"}])
def test_those_at_fault_are_found_by_halving(bad):
    result, skipped = without_failing("abcde", (), attempt(bad))
    assert set(result) == set("abcde") - bad
    assert {skip.name for skip in skipped} == bad


def test_of_layers_that_only_fail_together_the_first_ones_go():
    result, skipped = without_failing("abcd", (), attempt(set(), [("a", "c"), ("b", "d")]))
    assert set(result) == {"a", "b"}
    assert [(skip.name, skip.reason) for skip in skipped] == [("c", "wrong"), ("d", "wrong")]
    with pytest.raises(FailedRemoval, match="heads of `c` cannot be removed: wrong"):
        without_failing("abcd", ("c",), attempt(set(), [("a", "c")]), what="heads")


@pytest.mark.parametrize("bad", [set(), {"a"}, {"e"}, {"a", "b"}])
def test_what_went_well_is_not_done_again(bad):
    tried = []

    def counted(names):
        tried.append(tuple(names))
        return attempt(bad)(names)

    result, _ = without_failing("abcde", (), counted)
    assert result == tuple(name for name in "abcde" if name not in bad)
    assert tried.count(result) == 1


class Tied(nn.Module):
    """Two branches side by side are added to a third layer, which has the width of both."""

    def __init__(self, left, right):
        super().__init__()
        self.both, self.left, self.right = (nn.Linear(INPUTS, n) for n in (left + right, left, right))
        self.head = nn.Linear(left + right, 2)

    def forward(self, x):
        return self.head(torch.relu(self.both(x) + torch.cat([self.left(x), self.right(x)], -1)))


def test_tied_layers_of_different_widths_lose_their_share_each():
    torch.manual_seed(0)
    done = prune(
        Tied(4, 8).double().eval(),
        {},
        [(torch.randn(5, INPUTS, dtype=torch.float64),)],
        names=["both", "left", "right"],
        amount=Amount(ratio=0.5),
    )
    assert [done.model.get_submodule(name).out_features for name in ("both", "left", "right")] == [6, 2, 4]


def test_a_number_that_does_not_come_out_is_told_and_refused_if_it_was_asked_for():
    model, x = Tied(3, 8).double().eval(), torch.randn(5, INPUTS, dtype=torch.float64)
    options = {"names": ["both", "left", "right"], "amount": Amount(count=2)}
    done = prune(model, {}, [(x,)], required=[], **options)
    assert {skip.name: skip.reason for skip in done.skipped} == {
        "both": "is tied to layers of other sizes or ratios and would lose 4 units instead of 2"
    }
    with pytest.raises(SurgeryError, match="`both` is tied to layers of other sizes"):
        prune(model, {}, [(x,)], required=["both"], **options)


def test_a_reason_that_holds_for_both_directions_is_said_once():
    class Shown(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 4, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.rnn(x)[0]

    with pytest.raises(SurgeryError, match="nothing can be removed") as caught:
        prune(Shown().eval(), {}, [(torch.randn(2, 5, 3),)], names=["rnn"], required=[], amount=Amount(ratio=0.5))
    assert caught.value.message.count("`rnn`:") == 1


class InTheModelItself(nn.Module):
    """The loop is in the model's own `forward`, with a number in it."""

    def __init__(self):
        super().__init__()
        self.enter, self.again, self.head = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x):
        h = x.new_zeros(x.size(0), 12)
        for step in x.unbind(1):
            h = torch.tanh(self.enter(step) + self.again(h))
        return self.head(h)


def test_the_model_itself_has_no_name_to_ignore():
    examples = [(torch.randn(2, 3, 5),), (torch.randn(3, 7, 5),)]
    with pytest.raises(SurgeryError, match="units of the model itself cannot be removed: the smaller") as error:
        prune(InTheModelItself().eval(), {}, examples, names=[""], amount=Amount(ratio=0.5))
    assert "ignore" not in error.value.hint


class Doubled(nn.GRU):
    """A GRU that another code adds something to."""

    def forward(self, x):
        states, last = super().forward(2.0 * x)
        return states, last[-1]


class Given(nn.Module):
    """The last layer's state is an output, if it is asked for."""

    def __init__(self, *, state):
        super().__init__()
        self.core, self.head, self.state = Doubled(INPUTS, HIDDEN, 2, batch_first=True), nn.Linear(HIDDEN, 2), state

    def forward(self, x):
        states, last = self.core(x)
        return (self.head(states), last) if self.state else self.head(states)


def test_a_subclass_of_which_one_layer_has_to_stay_says_why_that_stays():
    x = torch.randn(2, 5, INPUTS, dtype=torch.float64)
    half = Amount(ratio=0.5)
    assert (
        prune(Given(state=False).double().eval(), {}, [(x,)], names=["core"], amount=half).model.core.hidden_size == 6
    )
    with pytest.raises(SurgeryError, match="keeps its units: it is part of the model's output 1") as caught:
        prune(Given(state=True).double().eval(), {}, [(x,)], names=["core"], amount=half, required=())
    assert "scope" not in caught.value.hint
