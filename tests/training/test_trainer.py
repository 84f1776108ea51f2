from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.nn.masks import prune_
from compressor.training.trainer import Noise, Trainer, lr_factor, make_optimizer

OPTIMIZERS = [("adam", 0.0), ("adamw", 0.0), ("sgd", 0.0), ("sgd", 0.9)]


def model_and_batches(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    generator = torch.Generator().manual_seed(seed)
    return model, [
        (torch.randn(11, 5, generator=generator), torch.randn(11, 3, generator=generator)) for _ in range(13)
    ]


def squared_error(model):
    return lambda batch: nn.functional.mse_loss(model(batch[0]), batch[1])


def trainer_of(model, kind="adam", *, lr=0.01, weight_decay=0.0, momentum=0.0, masks=None, **options):
    parameters = dict(model.named_parameters())
    optimizer = make_optimizer(kind, [*parameters.values()], lr=lr, weight_decay=weight_decay, momentum=momentum)
    return Trainer(parameters, optimizer, masks=masks or {}, **options)


def run(trainer, batches, loss):
    return trainer.epoch(batches, loss, lambda done, latest: None, number=1)


@pytest.mark.parametrize(("kind", "momentum"), OPTIMIZERS)
def test_an_epoch_gives_the_weights_of_a_bare_loop(kind, momentum):
    model, batches = model_and_batches()
    bare = copy.deepcopy(model)
    extra = {"momentum": momentum} if kind == "sgd" else {}
    plain = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[kind]
    optimizer = plain(bare.parameters(), lr=0.01, weight_decay=0.1, **extra)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        losses.append(squared_error(bare)(batch))
        losses[-1].backward()
        nn.utils.clip_grad_norm_(bare.parameters(), 0.5)
        optimizer.step()
    trainer = trainer_of(model, kind, weight_decay=0.1, momentum=momentum, clip=0.5)
    mean = run(trainer, batches, squared_error(model))
    assert mean == pytest.approx(sum(loss.item() for loss in losses) / len(losses), rel=1e-5)
    for ours, theirs in zip(model.parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize(("kind", "momentum"), OPTIMIZERS)
def test_pruned_weights_are_positive_zero_after_every_step(kind, momentum, noise):
    model, batches = model_and_batches()
    masks = {name: torch.rand_like(model.get_parameter(name)) < 0.4 for name in ("0.weight", "2.weight")}
    prune_(model, masks)
    loss, steps = squared_error(model), []

    def watched(batch):
        pruned = [model.get_parameter(name)[~mask] for name, mask in masks.items()]
        assert not any(bool(part.any()) or bool(torch.signbit(part).any()) for part in pruned)
        steps.append(batch)
        return loss(batch)

    gaussian = Noise(0.3, 0.55, torch.Generator().manual_seed(0)) if noise else None
    trainer = trainer_of(
        model, kind, lr=0.1, weight_decay=0.1, momentum=momentum, masks=masks, clip=1.0, noise=gaussian
    )
    run(trainer, [*batches, batches[0]], watched)
    assert len(steps) == 14
    assert all(bool(model.get_parameter(name)[mask].all()) for name, mask in masks.items())


def test_clipping_bounds_the_norm_of_the_whole_gradient():
    model, batches = model_and_batches()
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    run(trainer_of(model, "sgd", lr=1.0, clip=0.003), batches[:1], squared_error(model))
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert moved.norm().item() == pytest.approx(0.003, rel=1e-3)


def test_pruned_weights_do_not_count_for_clipping():
    model = nn.Linear(2, 1, bias=False)
    mask = torch.tensor([[False, True]])
    prune_(model, {"weight": mask})
    before = model.weight.detach().clone()
    trainer = trainer_of(model, "sgd", lr=1.0, clip=1.0, masks={"weight": mask})
    run(trainer, [torch.tensor([[1e6, 0.5]])], lambda x: model(x).sum())
    assert (before - model.weight)[0, 1].item() == pytest.approx(0.5)


def test_noise_is_added_after_clipping():
    model = nn.Linear(101, 103, bias=False)
    before = model.weight.detach().clone()
    noise = Noise(0.25, 0.55, torch.Generator().manual_seed(0))
    trainer = trainer_of(model, "sgd", lr=1.0, clip=1e-6, noise=noise)
    run(trainer, [torch.ones(1, 101)], lambda x: model(x).sum())
    assert (before - model.weight).std().item() == pytest.approx(0.5, rel=0.05)


def test_the_step_of_the_noise_goes_on_over_epochs():
    model = nn.Linear(101, 103, bias=False)
    trainer = trainer_of(model, "sgd", lr=1.0, noise=Noise(1.0, 2.0, torch.Generator().manual_seed(0)))
    batches = [torch.zeros(1, 101)] * 5
    run(trainer, batches, lambda x: model(x).sum())
    before = model.weight.detach().clone()
    run(trainer, batches[:1], lambda x: model(x).sum())
    assert (before - model.weight).std().item() == pytest.approx(1 / 6, rel=0.05)  # variance 1 / (1 + 5)^2


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.75, 0.5, 0.25]),
        ("cosine", 0.0, [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("linear", 0.5, [0.5, 1, 1, 0.5]),
        ("constant", 0.5, [0.5, 1, 1, 1]),
    ],
)
def test_the_learning_rate_rises_over_the_warmup_and_then_follows_its_schedule(schedule, warmup, expected):
    assert [lr_factor(step, 4, schedule, warmup) for step in range(4)] == pytest.approx(expected)


def test_the_learning_rate_stays_at_zero_after_more_steps_than_were_counted():
    assert lr_factor(9, 4, "linear", 0.0) == 0.0


def test_the_optimizer_uses_the_scheduled_rate():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    trainer = trainer_of(model, "sgd", lr_at=lambda step: (1.0, 0.25)[step])
    run(trainer, [torch.ones(1, 1)] * 2, lambda x: model(x).sum())
    assert model.weight.item() == -1.25
    assert trainer.lr == 0.25


def test_a_loss_that_becomes_nan_names_step_and_epoch_and_a_remedy():
    model, batches = model_and_batches()
    batches[4] = (torch.full((11, 5), math.nan), batches[4][1])
    with pytest.raises(MethodError) as caught:
        trainer_of(model).epoch(batches, squared_error(model), lambda done, latest: None, number=3)
    assert caught.value.message == "retraining broke down: the loss is nan at step 5 (epoch 3)"
    assert caught.value.hint == "lower `lr`, set a smaller `clip`, or check the training data for NaN"


def test_a_gradient_that_is_not_finite_is_told_from_the_loss():
    model = nn.Linear(3, 1)
    with pytest.raises(MethodError, match=r"the gradient is nan at step 1 \(epoch 1\)"):
        # sqrt has an infinite slope at 0, times 0
        run(trainer_of(model, clip=None), [torch.ones(2, 3)], lambda x: (model(x) * 0).pow(2).sqrt().sum())


def test_a_last_step_that_breaks_the_weights_is_noticed():
    model = nn.Linear(3, 1)
    with pytest.raises(MethodError, match=r"a weight is NaN or infinite at step 1 \(epoch 1\)"):
        run(trainer_of(model, "sgd", lr=3e38), [torch.full((1, 3), 1e3)], lambda x: model(x).sum())


def test_an_epoch_without_batches_is_refused():
    model, _ = model_and_batches()
    with pytest.raises(MethodError, match="the task gave no training batches"):
        run(trainer_of(model), [], squared_error(model))


def test_a_loss_that_reaches_no_parameter_is_refused():
    model, _ = model_and_batches()
    other = nn.Linear(5, 1)
    with pytest.raises(MethodError, match="no parameter of the model received a gradient"):
        run(trainer_of(model), [torch.ones(2, 5)], lambda x: other(x).sum())


def test_sparse_gradients_are_refused():
    model = nn.Embedding(5, 3, sparse=True)
    with pytest.raises(MethodError, match="sparse gradient"):
        run(trainer_of(model), [torch.tensor([1, 2])], lambda x: model(x).sum())
