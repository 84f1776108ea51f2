from __future__ import annotations

import pytest
import torch

from compressor.errors import MethodError
from compressor.progress import SilentBar
from compressor.training.epoch_batches import EpochBatches


def made(generator, *, hold_back=2, most=None, count=13):
    def draw():
        return (float(torch.rand((), generator=generator)) for _ in range(count))

    return EpochBatches(draw, generator, epochs=3, most=most, scheduled=False, hold_back=hold_back)


@pytest.mark.parametrize("most", [None, 7])
def test_what_is_held_back_is_never_given_and_epochs_have_the_same_batches_in_new_orders(most):
    batches = made(torch.Generator().manual_seed(0), most=most)
    epochs = [list(batches.epoch()) for _ in range(3)]
    assert len(batches.held) == 2
    assert batches.total == 3 * (most or 11)
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert not set(epochs[0]) & set(batches.held)
    assert batches.first(2) == batches.first(99)[:2]
    assert sorted(batches.first(99)) == sorted(epochs[0])


def test_the_order_goes_on_where_a_snapshot_was_taken():
    whole = made(torch.Generator().manual_seed(0))
    list(whole.epoch())
    state = whole.snapshot()
    wanted = [list(whole.epoch()) for _ in range(2)]
    again = made(torch.Generator().manual_seed(0))
    again.put_back(state, 1, SilentBar())
    assert [list(again.epoch()) for _ in range(2)] == wanted


def test_nothing_is_kept_in_memory_if_nothing_is_held_back():
    batches = made(torch.Generator().manual_seed(0), hold_back=0)
    assert batches.held == []
    assert batches.first(3) is None
    assert set(batches.epoch()).isdisjoint(batches.epoch())


@pytest.mark.parametrize("count", [1, 2])
def test_holding_back_everything_is_refused(count):
    with pytest.raises(MethodError, match=f"`hold_back: 2` leaves no batch to train on: the task gives {count} an"):
        made(torch.Generator(), count=count)
