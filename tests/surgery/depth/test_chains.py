"""A recurrent module of some of its layers holds their own weights and is as PyTorch would build it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.surgery.depth.chains import Site, arrange


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("chain", [(0,), (0, 2), (0, 1, 2), (0, 2, 1, 2)])
def test_layers_of_a_chain_are_the_old_ones_one_after_the_other(kind, bidirectional, chain):
    torch.manual_seed(0)
    old = kind(6, 3 if bidirectional else 6, 3, dropout=0.25, batch_first=True, bidirectional=bidirectional)
    model = nn.ModuleDict({"rnn": old.eval()})
    weights = dict(old.named_parameters())
    arrange(model, Site("rnn", 0, 3), chain)
    new, x = model["rnn"], torch.randn(2, 5, 6)
    assert (new.num_layers, new.dropout, new.batch_first) == (len(chain), 0.25 if len(chain) > 1 else 0.0, True)
    assert (new.training, new.bidirectional) == (False, bidirectional)
    y = x
    for number in chain:
        alone = kind(6, old.hidden_size, batch_first=True, bidirectional=bidirectional)
        own = {name: weight for name, weight in weights.items() if f"_l{number}" in name}
        alone.load_state_dict({name.replace(f"_l{number}", "_l0"): weight for name, weight in own.items()})
        y = alone(y)[0]
    torch.testing.assert_close(new(x)[0], y, atol=1e-6, rtol=1e-5)
    held = {id(weight) for weight in new.parameters()}
    assert held == {id(weight) for name, weight in weights.items() if any(f"_l{number}" in name for number in chain)}
