from __future__ import annotations

import math

import pytest
import torch

from compressor.nn.accelerators import generator_on
from compressor.training.noise import add_noise_, noise_std

SAMPLES = 300_007


@pytest.mark.parametrize(("step", "eta"), [(0, 0.01), (0, 0.3), (9, 0.3), (999, 1.0)])
def test_the_variance_of_the_noise_is_eta_over_one_plus_t_to_the_gamma(step, eta):
    gradient = torch.zeros(SAMPLES, dtype=torch.float64)
    add_noise_([gradient], noise_std(step, eta), torch.Generator().manual_seed(step))
    variance = eta / (1 + step) ** 0.55
    # the variance of N samples has a standard error of sqrt(2 / N) of itself
    assert gradient.var().item() == pytest.approx(variance, rel=5 * math.sqrt(2 / SAMPLES))
    assert abs(gradient.mean().item()) < 5 * math.sqrt(variance / SAMPLES)


def test_gamma_zero_does_not_fade():
    assert noise_std(1000, 0.25, gamma=0.0) == 0.5


def test_the_noise_is_added_to_what_is_there():
    gradient = torch.full((3, 5), 7.0)
    add_noise_([gradient], 0.0, torch.Generator())
    assert gradient.eq(7.0).all()


def test_the_noise_does_not_depend_on_how_components_are_split():
    whole, parts = torch.zeros(15), [torch.zeros(2, 5), torch.zeros(5)]
    add_noise_([whole], 0.5, torch.Generator().manual_seed(3))
    add_noise_(parts, 0.5, torch.Generator().manual_seed(3))
    assert torch.cat([part.flatten() for part in parts]).equal(whole)


def test_no_gradients_are_fine():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    add_noise_([], 1.0, generator)
    assert generator.get_state().equal(before)


def test_noise_is_drawn_on_the_device(accelerator):
    gradient = torch.zeros(SAMPLES, device=accelerator)
    add_noise_([gradient], 0.5, generator_on(accelerator).manual_seed(0))
    assert gradient.var().item() == pytest.approx(0.25, rel=5 * math.sqrt(2 / SAMPLES))
