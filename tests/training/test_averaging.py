from __future__ import annotations

import torch
from torch import nn

from compressor.training.averaging import Average


def steps(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 5, generator=generator) for _ in range(count)]


def seen(average, weight, values, first=1):
    for step, value in enumerate(values, first):
        with torch.no_grad():
            weight.copy_(value)
        average.see(step)


def test_the_mean_is_that_of_the_steps_after_the_first_ones():
    weight, values = nn.Parameter(torch.zeros(3, 5)), steps(7)
    average = Average({"w": weight}, after=4)
    seen(average, weight, values[:4])
    assert average.count == 0
    seen(average, weight, values[4:], first=5)
    assert average.count == 3
    torch.testing.assert_close(average.mean["w"], sum(values[4:]) / 3, atol=1e-6, rtol=1e-6)


def test_the_mean_of_equal_weights_is_these_to_the_last_bit():
    weight = nn.Parameter(torch.zeros(3, 5))
    average = Average({"w": weight}, after=0)
    seen(average, weight, steps(1) * 5)
    assert torch.equal(average.mean["w"], weight)


def test_the_last_weights_come_back():
    weight, values = nn.Parameter(torch.zeros(3, 5)), steps(3)
    average = Average({"w": weight}, after=0)
    seen(average, weight, values)
    with average.held():
        assert torch.equal(weight, average.mean["w"])
    assert torch.equal(weight, values[-1])
