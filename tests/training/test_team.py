"""Batches of a step, and what processes do of them."""

import copy

import pytest
import torch
from torch import nn

from compressor.training.team import ALONE, shared_sums
from compressor.training.trainer import Trainer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.drop(torch.tanh(self.first(x))))


def batches(count):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, generator=generator), torch.randn(4, 1, generator=generator)) for _ in range(count)]


def trainer(model, **options):
    parameters = dict(model.named_parameters())
    return Trainer(parameters, torch.optim.SGD(list(parameters.values()), lr=0.1), masks={}, **options)


def epoch(model, given, **options):
    """Loss, weights and how many batches were told of."""
    torch.manual_seed(5)
    told = []
    mean = trainer(model, **options).epoch(
        given, lambda batch: (model(batch[0]) - batch[1]).square().mean(), lambda done, _: told.append(done), number=1
    )
    return mean, [parameter.detach().clone() for parameter in model.parameters()], sum(told)


def test_a_step_over_several_batches_is_one_over_all_their_samples():
    torch.manual_seed(0)
    model = Net().eval()
    joined = copy.deepcopy(model)
    given = batches(6)
    several = epoch(model, given, accumulate=3)
    pairs = [tuple(torch.cat(parts) for parts in zip(*given[start : start + 3], strict=True)) for start in (0, 3)]
    one = epoch(joined, pairs)
    assert several[0] == pytest.approx(one[0])
    for left, right in zip(several[1], one[1], strict=True):
        torch.testing.assert_close(left, right)
    assert several[2] == 6


def test_the_last_step_of_an_epoch_may_have_fewer_batches():
    torch.manual_seed(0)
    model = Net().eval()
    last = copy.deepcopy(model)
    given = batches(4)
    epoch(model, given, accumulate=3)
    epoch(last, given[:3], accumulate=3)
    epoch(last, given[3:])
    for left, right in zip(model.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(left, right)


def test_what_a_batch_draws_does_not_depend_on_who_computed_the_one_before():
    torch.manual_seed(0)
    model = Net().train()
    seen = []

    def loss(batch):
        value = (model(batch[0]) - batch[1]).square().mean()
        seen.append(float(value.detach()))
        return value

    torch.manual_seed(5)
    trainer(model, accumulate=2).epoch(batches(2), loss, lambda *_: None, number=1)
    torch.manual_seed(0)
    model = Net().train()
    torch.manual_seed(5)
    only = trainer(model, accumulate=2, team=_Second()).epoch(batches(2), loss, lambda *_: None, number=1)
    assert seen[1] == seen[2]
    assert only == pytest.approx(seen[1] / 2)


class _Second:
    """The second of two processes; nobody adds anything."""

    rank, size = 1, 2

    def agreed(self, make):
        return make()

    def add_up(self, parameters, loss):
        return loss


def test_sums_are_over_all_processes_and_a_gradient_of_one_is_one_of_all():
    torch.manual_seed(0)
    one, other = (
        [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))] for _ in range(2)
    )
    one[0].grad, other[0].grad = torch.ones(2, 3), torch.full((2, 3), 2.0)
    other[1].grad = torch.full((4,), 3.0)
    sent = []

    def first(tensor):
        sent.append(tensor.clone())

    shared_sums(other, torch.tensor(0.5), first, first)  # what the other process sends
    place = iter(sent)
    total = shared_sums(
        one,
        torch.tensor(0.25),
        lambda tensor: tensor.copy_(torch.maximum(tensor, next(place))),
        lambda tensor: tensor.add_(next(place)),
    )
    assert float(total) == 0.75
    assert torch.equal(one[0].grad, torch.full((2, 3), 3.0))
    assert torch.equal(one[1].grad, torch.full((4,), 3.0))
    assert one[2].grad is None


def test_alone_nothing_is_sent():
    value = torch.tensor(2.0)
    assert ALONE.add_up([], value) is value
    assert ALONE.agreed(lambda: 3) == 3
