"""A model in float64."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn

from compressor.measure import precisions
from compressor.measure.precisions import in_float64

with warnings.catch_warnings():
    warnings.simplefilter("ignore")

    @torch.jit.script
    def scored(states, table):
        return states @ table.t()


class Tagger(nn.Module):
    """Words to scores; `tied`: by the table of the words itself."""

    def __init__(self, tied):
        super().__init__()
        self.table, self.rnn = nn.Embedding(11, 6), nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 11)
        self.tied = tied
        if tied == "parameter":
            self.head.weight = self.table.weight
        self.register_buffer("shift", torch.tensor(0.1))

    def forward(self, words):
        states = self.rnn(self.table(words))[0] + self.shift
        if self.tied == "norms":  # fails nowhere if they are float32
            return self.head(states) - self.table.weight.square().sum(1)
        if self.tied == "script":
            return scored(states, self.table.weight)
        return states @ self.table.weight.T if self.tied == "function" else self.head(states)


@pytest.mark.parametrize("tied", ["", "parameter", "function", "norms", "script"])
def test_a_model_with_a_table_computes_what_a_whole_copy_in_float64_does_and_stays_as_it_is(tied):
    torch.manual_seed(0)
    model = Tagger(tied).eval()
    before = copy.deepcopy(model.state_dict())
    words = torch.randint(11, (2, 5))
    with torch.no_grad():
        exact, wanted = in_float64(model), copy.deepcopy(model).double()(words)
        for _ in range(2):
            assert torch.equal(exact(words), wanted)
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert {part.dtype for part in model.state_dict().values()} == {torch.float32}


def test_a_table_that_is_only_looked_up_is_not_copied():
    model, real, looked = Tagger("").eval(), nn.functional.embedding, []

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is real:
                looked.append(args[1])
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watched():
        in_float64(model)(torch.zeros(1, 2, dtype=torch.long))
    assert [part is model.table.weight for part in looked] == [True]


@pytest.mark.parametrize("tied", ["", "script"])
def test_the_copy_is_gone_with_what_calls_it_before_any_garbage_is_collected(tied, monkeypatch):
    made, copied = [], precisions._doubled

    def seen(*given):
        exact = copied(*given)
        made.append(weakref.ref(exact))
        return exact

    monkeypatch.setattr(precisions, "_doubled", seen)
    gc.disable()
    try:
        with torch.no_grad():
            in_float64(Tagger(tied).eval())(torch.zeros(1, 2, dtype=torch.long))
        assert [exact() for exact in made] == [None] * (2 if tied else 1)
    finally:
        gc.enable()
