from __future__ import annotations

import torch
from torch import nn

from compressor.progress import Silent
from compressor.starting.arguments import find


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.out = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, *, features, temperature=1.0):
        return {"logits": self.out(torch.tanh(self.enter(features))) / temperature}


class Mixed(ByName):
    def forward(self, features, scale=1.0, *, mask):
        return self.out(torch.tanh(self.enter(features * mask))) * scale


def test_arguments_that_are_taken_by_name_only_are_given_by_name():
    for model, names in ((ByName(), {"features"}), (Mixed(), {"features", "mask"})):
        arguments = find(model.eval(), Silent())
        assert arguments.keywords
        assert set(arguments.texts) == names
