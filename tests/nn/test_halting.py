"""A layer in a loop that each sample leaves by itself, beside the rule written out."""

import copy

import pytest
import torch
from torch import nn

from compressor.nn.halting import HaltingLayer, forget_steps, halting_layers, step_facts


class Half(nn.Module):
    """Goes half of the way to a point that depends on the sample; `side` is a further argument."""

    def __init__(self, tuple_out=False):
        super().__init__()
        self.linear, self.tuple_out = nn.Linear(3, 3), tuple_out

    def forward(self, x, side, scale=1.0):
        y = 0.5 * x + scale * torch.tanh(self.linear(x)) * side
        return (y,) if self.tuple_out else y


def made(steps=9, threshold=0.03, batch_axis=0, **options):
    torch.manual_seed(0)
    return HaltingLayer(Half(**options), steps, threshold, batch_axis).eval()


def samples():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.tensor([0.01, 0.3, 1.0, 4.0, 20.0])
    return sizes[:, None, None] * torch.randn(5, 7, 3, generator=generator), torch.linspace(0.0, 2.0, 5)[:, None, None]


def naive(module, x, side):
    """One sample after another."""
    results, counts = [], []
    for row, own in zip(x, side, strict=True):
        states = [row]
        while len(states) <= module.steps:
            states.append(module.layer(states[-1][None], own[None])[0])
            if float((states[-1] - states[-2]).norm() / states[-1].norm()) <= module.threshold:
                break
        results.append(states[-1])
        counts.append(len(states) - 1)
    return torch.stack(results), counts


@pytest.mark.parametrize("threshold", [1e-3, 0.03, 0.2, 0.9])
def test_each_sample_stops_when_it_has_settled(threshold):
    module, (x, side) = made(threshold=threshold), samples()
    with torch.no_grad():
        wanted, counts = naive(module, x, side)
        torch.testing.assert_close(module(x, side), wanted)
    assert sorted(module.taken.elements()) == sorted(counts)


def test_a_sample_does_not_depend_on_its_neighbours():
    module, (x, side) = made(threshold=0.2), samples()
    together = module(x, side)
    alone = torch.cat([module(x[i : i + 1], side[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone)


def test_the_batch_may_be_another_axis():
    first, second, (x, side) = made(threshold=0.2), made(threshold=0.2, batch_axis=1), samples()
    torch.testing.assert_close(second(x.transpose(0, 1), side.transpose(0, 1)).transpose(0, 1), first(x, side))
    assert first.taken == second.taken


def test_without_a_threshold_all_steps_are_made_and_in_training_too():
    x, side = samples()
    module = made(threshold=0.0)
    wanted = x
    for _ in range(9):
        wanted = module.layer(wanted, side)
    torch.testing.assert_close(module(x, side), wanted)
    training = made(threshold=0.9).train()
    given, apart = x.clone().requires_grad_(), x.clone().requires_grad_()
    result = training(given, side)
    chained = apart
    for _ in range(9):
        chained = training.layer(chained, side)
    torch.testing.assert_close(result, chained)
    assert not training.taken
    result.square().sum().backward()
    gradient = training.layer.linear.weight.grad.clone()
    training.zero_grad()
    chained.square().sum().backward()
    torch.testing.assert_close(training.layer.linear.weight.grad, gradient)
    torch.testing.assert_close(given.grad, apart.grad)


def test_a_tuple_stays_one_and_further_arguments_go_along():
    x, side = samples()
    plain, wrapped = made(), made(tuple_out=True)
    assert wrapped(x, side, scale=0.3)[0].equal(plain(x, side, scale=0.3))


def test_steps_are_counted_anew_and_attributes_are_the_layers():
    model = nn.Sequential(made(threshold=0.2))
    x, side = samples()
    model[0](x, side)
    facts = step_facts(model)
    counts = list(model[0].taken.elements())
    assert facts["mean steps of `0` (at most 9)"] == pytest.approx(sum(counts) / 5)
    assert facts["largest number of steps of `0` (at most 9)"] == max(counts)
    forget_steps(model)
    assert step_facts(model) == {}
    assert model[0].tuple_out is False
    assert list(halting_layers(copy.deepcopy(model))) == ["0"]
    with pytest.raises(AttributeError):
        _ = model[0].nothing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_samples_of_many_numbers_stop_in_half_precision_as_in_float32(dtype):
    wide = HaltingLayer(nn.Hardtanh(-50.0, 50.0), 6, 0.1, 0).eval()
    x = torch.randn(3, 4000, generator=torch.Generator().manual_seed(2)) * torch.tensor([10.0, 40.0, 90.0])[:, None]
    wanted = wide(x)
    taken = sorted(wide.taken.elements())
    wide.taken.clear()
    result = wide(x.to(dtype))
    assert result.dtype == dtype
    assert sorted(wide.taken.elements()) == taken
    torch.testing.assert_close(result.float(), wanted, rtol=1e-2, atol=1e-2)
