"""The weights of the best epoch come back."""

from __future__ import annotations

import pytest
from torch import nn

from compressor.training.best_weights import BestWeights


@pytest.mark.parametrize(("higher", "best"), [(True, 3), (False, 2)])
def test_the_best_weights_come_back_and_the_wait_is_counted_in_epochs(higher, best):
    model = nn.Linear(1, 1)
    memory = BestWeights(higher_is_better=higher, patience=2)
    stops = []
    for epoch, metric in enumerate([0.5, 0.3, 0.8, 0.8, 0.4], start=1):
        nn.init.constant_(model.weight, epoch)
        stops.append(memory.see(epoch, metric, model))
    memory.restore(model)
    assert memory.epoch == best
    assert model.weight.item() == best
    assert stops == ([False, False, False, False, True] if higher else [False, False, False, True, True])
