"""What every export begins with."""

from __future__ import annotations

import torch
from torch import nn

from exporters.prepare import private_copy


def test_a_copy_with_the_same_parameters_holds_no_weight_twice_and_leaves_the_model_as_it_is():
    model = nn.Sequential(nn.LSTM(3, 5), nn.Linear(5, 7)).train()
    model.register_buffer("count", torch.zeros(()))
    copied = private_copy(model, same_parameters=True)
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), copied.parameters(), strict=True))
    assert copied.count is not model.count
    assert (model.training, model[0].training, copied[0].training) == (True, True, False)
    apart = private_copy(model)
    assert not any(ours is theirs for ours, theirs in zip(model.parameters(), apart.parameters(), strict=True))
