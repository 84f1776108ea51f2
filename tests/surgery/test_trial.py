"""A changed model is run once before it is handed on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.surgery.trial import run_once


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (ValueError("first\nsecond"), "`rnn` cannot be replaced: the model then raises ValueError: first", "look"),
        (AssertionError(), "`rnn` cannot be replaced: the model then raises AssertionError", "look"),
        (MethodError("no states", hint="its own"), "`rnn` cannot be replaced: no states", "its own"),
    ],
)
def test_what_went_wrong_is_told_in_one_line_with_what_to_do(error, message, hint):
    with pytest.raises(MethodError) as caught:
        run_once(Failing(error), (torch.ones(1),), torch.device("cpu"), problem="`rnn` cannot be replaced", hint="look")
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_the_model_itself_stays_in_its_mode():
    model = nn.Dropout().train()
    assert torch.equal(run_once(model, (torch.ones(7),), torch.device("cpu"), problem="", hint=""), torch.ones(7))
    assert model.training
