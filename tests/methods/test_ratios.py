"""`ratios`: another ratio for each layer."""

import pytest
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from tests.methods.conftest import CHANNELS, SignTask, make_context


class Three(nn.Module):
    def __init__(self):
        super().__init__()
        self.front = nn.GRU(CHANNELS, 11, num_layers=2, bidirectional=True, batch_first=True)
        self.middle = nn.LSTM(22, 13, batch_first=True)
        self.back = nn.RNN(13, 7, batch_first=True)
        self.head = nn.Linear(7, 2)

    def forward(self, x):
        return self.head(self.back(self.middle(self.front(x)[0])[0])[0][:, -1])


def prune(**options):
    model = Three().eval()
    return Magnitude(prune="units", **options).apply(State(model), make_context(model, SignTask()))


def sizes(result):
    model = result.state.model
    return model.front.hidden_size, model.middle.hidden_size, model.back.hidden_size


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"ratios": {"front": 0.5, "middle": 0.25}, "ratio": 0.3}, (6, 10, 5)),
        ({"ratios": {"front": 0.5}}, (6, 13, 7)),
        ({"ratios": {"front": 0, "*": 0.5}}, (11, 7, 4)),
        ({"ratios": {"re:front|back": 0.29}}, (8, 13, 5)),
        ({"ratios": {"middle": 0.5}, "ratio": 0.3, "round_to": 4}, (8, 8, 7)),
    ],
)
def test_each_layer_loses_its_own_share(options, kept):
    if options.get("round_to"):
        options = options | {"ignore": ("back",)}
    assert sizes(prune(**options)) == kept


def test_layers_left_alone_are_listed_with_the_reason():
    reasons = {skip.name: skip.reason for skip in prune(ratios={"front": 0.5, "back": 0}).skipped}
    assert reasons["middle"] == "no pattern of `ratios` fits it"
    assert reasons["back"] == "its ratio in `ratios` is 0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": {"fron": 0.5}}, r"`ratios`: `fron` matches nothing in the model(.|\n)*did you mean `front`"),
        ({"ratios": {"head": 0.5}}, "`ratios`: `head` matches only `head`.*, which `targets` does not choose"),
        ({"ratios": {"f*": 0.5, "*t": 0.25}}, r"`ratios` gives `front` several ratios: f\*: 0.5, \*t: 0.25"),
        ({"ratios": {"*": 0}}, "`magnitude` would change nothing"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(MethodError, match=message):
        Magnitude(prune="units", **options).check(Three())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": {"a": 0.5}, "count": 3}, "`ratios` goes with `ratio`, not with `count`"),
        ({"ratios": {}}, "at least 1 item"),
        ({"ratios": {"a": 1.0}}, "less than 1"),
        ({"ratios": {"re:(": 0.5}}, "is not a regular expression"),
        ({}, "needs either `ratio` or `count`, or `ratios`"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Magnitude(prune="units", **options)
