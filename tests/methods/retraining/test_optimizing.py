from __future__ import annotations

import dataclasses

import pytest
import torch

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.retrain import Retrain
from tests.methods.conftest import (
    BATCHES,
    SignTask,
    Tagger,
    make_context,
    same,
    weights,
)
from tests.progress import Recorder


def test_the_batches_that_are_held_back_choose_and_are_never_trained_on(state, model):
    task = SignTask()
    heard, loss = [], task.loss
    task.loss = lambda outputs, target: heard.append(target) or loss(outputs, target)
    held, _ = next(iter(SignTask().batches(torch.Generator().manual_seed(0))))
    options = {"distill": True, "hold_back": 1, "keep_best": True}
    result = Retrain(epochs=3, lr=0.03, **options).apply(state, make_context(model, task))
    assert len(heard) == 3 * (BATCHES - 1)
    assert not any(torch.equal(target, (held[0][:, -1, 0] > held[0][:, -1, 1]).long()) for target in heard)
    assert [row["distance"] > 0 for row in result.history] == [True] * 3
    # the original itself is where nothing can be nearer to it
    assert result.notes[0].startswith("the weights from before training kept: the least distance to the original")
    assert same(weights(result.state.model), weights(model))


def test_weights_nearer_to_the_original_on_what_was_held_back_are_kept_whatever_the_metric(model, task):
    torch.manual_seed(5)
    student = State(Tagger().eval())
    task.metrics = [0.9] + [0.1, 0.1] * 6
    options = {"distill": True, "distill_weight": 1.0, "distill_loss": "mse", "hold_back": 2, "average_last": 0.4}
    result = Retrain(epochs=6, lr=0.02, keep_best=True, **options).apply(student, make_context(model, task))
    distances = {
        (epoch, averaged): row[f"distance{' of the average' if averaged else ''}"]
        for epoch, row in enumerate(result.history, 1)
        for averaged in (False, True)
        if not averaged or "distance of the average" in row
    }
    assert [epoch for epoch, averaged in distances if averaged] == [4, 5, 6]  # 2.4 epochs are the last 40 %
    epoch, averaged = min(distances, key=distances.get)
    assert f"epoch {epoch} of 6 kept: the least distance to the original" in result.notes[0]
    assert result.notes[0].startswith("the mean of the weights") == averaged


def test_the_average_is_a_candidate_beside_the_last_weights(state, model, task):
    task.metrics = [0.1, 0.2, 0.9, 0.3, 0.4]  # before, epoch 1, its average, epoch 2, its average
    options = {"keep_best": True, "average_last": 1.0, "max_batches": 2, "lr": 0.03}
    result = Retrain(epochs=2, **options).apply(state, make_context(model, task))
    assert result.notes == ("the mean of the weights up to epoch 1 of 2 kept: the best validation metric",)
    assert [row["metric of the average"] for row in result.history] == [0.9, 0.4]
    one = Retrain(max_batches=1, lr=0.03).apply(state, make_context(model, SignTask())).state.model
    two = Retrain(max_batches=2, lr=0.03).apply(state, make_context(model, SignTask())).state.model
    wanted = (one.head.weight + two.head.weight) / 2
    torch.testing.assert_close(result.state.model.head.weight, wanted, atol=1e-6, rtol=1e-6)


def test_holding_back_more_than_there_is_is_refused(state, context):
    method = Retrain(distill=True, keep_best=True, hold_back=BATCHES)
    with pytest.raises(MethodError, match=f"`hold_back: {BATCHES}` leaves no batch to train on"):
        method.apply(state, context)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_masks_hold_through_retraining(model, context, optimizer):
    mask = torch.rand_like(model.rnn.weight_hh_l1) < 0.3
    method = Retrain(lr=0.01, optimizer=optimizer, weight_decay=0.1, noise_eta=0.01)
    result = method.apply(State(model, {"rnn.weight_hh_l1": mask}), context)
    weight = result.state.model.rnn.weight_hh_l1
    assert not weight[~mask].any()
    assert weight[mask].all()
    assert result.state.masks["rnn.weight_hh_l1"].equal(mask)


def test_quick_takes_a_handful_of_batches_once(state, model, task):
    result = Retrain(epochs=5).apply(state, make_context(model, task, quick=True))
    assert len(result.history) == 1
    assert task.losses_taken == 4


def test_max_batches_bounds_every_epoch(state, context, task):
    Retrain(epochs=3, max_batches=2).apply(state, context)
    assert task.losses_taken == 6


@pytest.mark.parametrize("sized", [True, False])
def test_the_bar_counts_batches_where_their_number_is_known_and_epochs_elsewhere(state, context, task, sized):
    if sized:
        batches = list(task.batches(torch.Generator()))
        task.batches = lambda generator: batches
    progress = Recorder()
    Retrain(epochs=3).apply(state, dataclasses.replace(context, progress=progress))
    (bar,) = progress.bars
    assert bar.total == bar.done == (3 * BATCHES if sized else 3)
    assert any(note.startswith("epoch 3/3, loss 0.") for note in bar.notes)


def test_a_schedule_counts_batches_without_a_length_and_still_sees_the_same_data(state, model):
    constant, scheduled = SignTask(), SignTask()
    Retrain(epochs=2).apply(state, make_context(model, constant))
    result = Retrain(epochs=2, schedule="linear", lr=0.012).apply(state, make_context(model, scheduled))
    assert constant.batches_given == 2 * BATCHES
    assert scheduled.batches_given == 3 * BATCHES
    assert [row["lr"] for row in result.history] == pytest.approx([0.007, 0.001])


def test_early_stopping_waits_and_restores_the_best_weights(state, model, task):
    task.metrics = [0.4, 0.5, 0.7, 0.6, 0.7, 0.9]  # the first is that of the weights from before training
    result = Retrain(epochs=5, early_stopping=2).apply(state, make_context(model, task))
    best = SignTask()
    best.metrics = [0.0, 0.0]
    expected = Retrain(epochs=2).apply(state, make_context(model, best)).state.model
    assert len(result.history) == 4
    assert result.notes == ("weights of epoch 2 of 4 kept: the best validation metric",)
    assert same(weights(result.state.model), weights(expected))


def test_without_keep_best_the_last_weights_stay(state, model, task):
    task.metrics = [0.9, 0.1]
    other = SignTask()
    other.metrics = [0.0, 0.9, 0.1]
    last = Retrain(epochs=2).apply(state, make_context(model, task))
    best = Retrain(epochs=2, keep_best=True).apply(state, make_context(model, other))
    assert not same(weights(last.state.model), weights(best.state.model))
    assert last.notes == ()


@pytest.mark.parametrize("options", [{"keep_best": True}, {"early_stopping": 2}])
def test_training_that_makes_it_worse_gives_back_the_weights_from_before(state, model, task, options):
    task.metrics = [0.9, 0.8, 0.7, 0.6]
    result = Retrain(epochs=2, lr=0.5, **options).apply(state, make_context(model, task))
    assert same(weights(result.state.model), weights(state.model))
    assert result.may_change_nothing
    assert result.notes[0] == ("the weights from before training kept: none of 2 epochs has a better validation metric")
