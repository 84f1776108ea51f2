"""A linear recurrence in blocks is the recurrence; Newton's method solves a nonlinear one, with its gradients."""

from __future__ import annotations

import pytest
import torch

from compressor.nn.converted.parallel import linear_recurrence, shifted, solve, with_gradients

BATCH, UNITS = 3, 5


def problem(length, states):
    torch.manual_seed(length)
    jacobians = 0.5 * torch.randn(length, BATCH, states, states, UNITS, dtype=torch.float64)
    return jacobians.requires_grad_(), torch.randn(length, BATCH, states, UNITS, dtype=torch.float64).requires_grad_()


def naive(jacobians, added):
    now, every = torch.zeros_like(added[0]), []
    for jacobian, more in zip(jacobians, added, strict=True):
        now = torch.einsum("bijn,bjn->bin", jacobian, now) + more
        every.append(now)
    return torch.stack(every)


@pytest.mark.parametrize("states", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 7, 32, 33, 101])
@pytest.mark.parametrize("block", [2, 3, 32])
def test_blocks_of_any_size_give_the_recurrence_and_its_gradients(states, length, block):
    parts = problem(length, states)
    results = [linear_recurrence(*parts, block), naive(*parts)]
    torch.testing.assert_close(*results, atol=1e-10, rtol=1e-10)
    gradients = [torch.autograd.grad(result.square().sum(), parts, materialize_grads=True) for result in results]
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-8, rtol=1e-8)


def test_gradients_go_back_through_all_positions():
    jacobians, added = problem(19, 2)
    weights = torch.randn(19, BATCH, 2, UNITS, dtype=torch.float64)
    expected = torch.autograd.grad((naive(jacobians.detach(), added) * weights).sum(), added)[0]
    states = naive(jacobians, added).detach()
    after = (jacobians.detach() * shifted(states).unsqueeze(2)).sum(3) + added
    found = torch.autograd.grad((with_gradients(after, jacobians.detach()) * weights).sum(), added)[0]
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


def test_a_linear_recurrence_is_solved_in_one_iteration_and_a_second_finds_nothing_left():
    jacobians, added = (part.detach() for part in problem(50, 1))
    found = solve(lambda before: ((jacobians * before.unsqueeze(2)).sum(3) + added, jacobians), added, 1e-12)
    assert found.iterations == 2
    torch.testing.assert_close(found.states, naive(jacobians, added), atol=1e-10, rtol=1e-10)


def test_what_does_not_converge_is_told():
    def chaotic(before):
        return torch.sin(50.0 * before) + 1.0, 50.0 * torch.cos(50.0 * before).unsqueeze(2)

    found = solve(chaotic, torch.zeros(200, 1, 1, 1, dtype=torch.float64), 1e-9, 3)
    assert not found.residual <= 1e-9  # NaN neither
