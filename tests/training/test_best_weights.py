"""The weights of the best epoch come back."""

from __future__ import annotations

import pytest
import torch
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


def test_an_epoch_with_two_candidates_counts_once_and_the_better_one_is_kept():
    memory, model = BestWeights(higher_is_better=False, patience=2), nn.Linear(3, 2)
    memory.see(0, 0.5, model)
    assert not memory.see(1, 0.6, model)
    assert not memory.see(1, 0.7, model, averaged=True)
    with torch.no_grad():
        model.weight.fill_(7.0)
    assert not memory.see(2, 0.4, model, averaged=True)
    assert (memory.epoch, memory.averaged) == (2, True)
    with torch.no_grad():
        model.weight.zero_()
    assert not memory.see(3, 0.4, model)
    again = BestWeights(higher_is_better=False, patience=2)
    again.put_back(*memory.snapshot())
    assert again.averaged
    assert again.see(4, 0.5, model)
    again.restore(model)
    assert bool((model.weight == 7.0).all())
