"""The regression from streamed sums, against solving the whole problem at once."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn.least_squares import RIDGES, Moments, Problem, choose_ridge, pattern_cost


def _samples(seed, count, inputs, outputs):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, inputs, generator=generator, dtype=torch.float64) + 0.5
    return z, torch.randn(count, outputs, generator=generator, dtype=torch.float64) + z[:, :1]


def _moments(z, r, pieces=1):
    moments = Moments(z.size(1), r.size(1), z.device)
    for part, target in zip(z.chunk(pieces), r.chunk(pieces), strict=True):
        moments.add(part, target)
    return moments


def _direct(z, r, ridge, *, constant):
    """The same minimum from the rows of the data, with sqrt(N rho v) I below them for the ridge."""
    centred, wanted = (part - part.mean(0) for part in (z, r)) if constant else (z, r)
    scale = (len(z) * ridge * centred.square().mean()).sqrt()
    rows = torch.cat([centred, scale * torch.eye(z.size(1), dtype=z.dtype)])
    targets = torch.cat([wanted, torch.zeros(z.size(1), r.size(1), dtype=z.dtype)])
    weights = torch.linalg.lstsq(rows, targets, driver="gelsd").solution.T
    return weights, r.mean(0) - weights @ z.mean(0) if constant else torch.zeros(r.size(1), dtype=z.dtype)


def _all(z, r, *, constant=True, allowed=None):
    return Problem(torch.arange(z.size(1)), slice(0, r.size(1)), constant, allowed)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1000),
    st.integers(2, 60),
    st.integers(1, 8),
    st.integers(1, 4),
    st.sampled_from(RIDGES),
    st.booleans(),
)
def test_streamed_sums_give_the_direct_solution(seed, count, inputs, outputs, ridge, constant):
    z, r = _samples(seed, count, inputs, outputs)
    found = _moments(z, r, pieces=min(count, 3)).solve(_all(z, r, constant=constant), ridge)
    weights, offset = _direct(z, r, ridge, constant=constant)
    torch.testing.assert_close(found.weights, weights, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(found.constant, offset, atol=1e-9, rtol=1e-7)


def test_a_part_of_the_inputs_and_outputs_is_a_problem_of_its_own():
    z, r = _samples(0, 50, 6, 5)
    problem = Problem(torch.tensor([1, 4]), slice(2, 4), constant=True)
    found = _moments(z, r).solve(problem, 0.1)
    weights, offset = _direct(z[:, [1, 4]], r[:, 2:4], 0.1, constant=True)
    torch.testing.assert_close(found.weights, weights)
    torch.testing.assert_close(found.constant, offset)


def test_with_a_mask_every_row_is_fitted_on_its_own_inputs():
    z, r = _samples(1, 80, 5, 4)
    allowed = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 1]]).bool()
    found = _moments(z, r).solve(_all(z, r, allowed=allowed), 0.03)
    spread = (z - z.mean(0)).square().mean()
    for row, mask in enumerate(allowed):
        assert not found.weights[row, ~mask].any()
        if mask.any():
            own = z[:, mask] - z[:, mask].mean(0)
            matrix = own.T @ own / len(z) + 0.03 * spread * torch.eye(int(mask.sum()), dtype=z.dtype)
            expected = torch.linalg.solve(matrix, own.T @ (r[:, row] - r[:, row].mean()) / len(z))
            torch.testing.assert_close(found.weights[row, mask], expected)


def test_the_error_is_that_of_the_samples():
    z, r = _samples(2, 40, 5, 3)
    problem = _all(z, r)
    moments = _moments(z, r, pieces=4)
    found = moments.solve(problem, 0.1)
    left = r - z @ found.weights.T - found.constant
    assert moments.error(problem, found) == pytest.approx(float(left.square().sum()))
    assert moments.error(problem) == pytest.approx(float(r.square().sum()))


def test_sums_add_up():
    z, r = _samples(3, 31, 4, 2)
    together = _moments(z[:10], r[:10]) + _moments(z[10:], r[10:])
    problem = _all(z, r)
    torch.testing.assert_close(together.solve(problem, 0.1).weights, _moments(z, r).solve(problem, 0.1).weights)
    assert together.samples == 31


def test_inputs_that_are_copies_of_each_other_share_the_weight():
    z, r = _samples(4, 30, 1, 1)
    copies = z.expand(-1, 4).contiguous()
    found = _moments(copies, r).solve(_all(copies, r), 1e-300)
    assert found.weights.isfinite().all()
    torch.testing.assert_close(found.weights, found.weights[:, :1].expand(-1, 4), rtol=1e-6, atol=1e-9)


def test_inputs_that_never_vary_get_no_weight():
    z, r = torch.ones(9, 3, dtype=torch.float64), torch.arange(9, dtype=torch.float64)[:, None]
    found = _moments(z, r).solve(_all(z, r), 0.1)
    assert not found.weights.any()
    torch.testing.assert_close(found.constant, r.mean(0))


@pytest.mark.parametrize("noise", [0.01, 30.0])
def test_the_ridge_is_the_one_that_errs_least_on_the_other_half(noise):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, 12, generator=generator, dtype=torch.float64)
    r = z @ torch.randn(12, 3, generator=generator, dtype=torch.float64)
    r = r + noise * torch.randn(60, 3, generator=generator, dtype=torch.float64)
    halves = [(z[:30], r[:30]), (z[30:], r[30:])]

    def error_on_the_other_half(ridge):
        total = 0.0
        for (a, b), (c, d) in (halves, halves[::-1]):
            weights, offset = _direct(a, b, ridge, constant=True)
            total += float((d - c @ weights.T - offset).square().sum())
        return total

    found = choose_ridge(tuple(_moments(*half) for half in halves), _all(z, r))
    assert found == min(RIDGES, key=error_on_the_other_half)
    assert found == (max(RIDGES) if noise > 1 else min(RIDGES))


def test_of_equally_good_ridges_the_largest_is_taken():
    z, r = _samples(5, 20, 3, 2)
    nothing = torch.zeros_like(r)
    assert choose_ridge((_moments(z, nothing), _moments(z, nothing)), _all(z, r)) == max(RIDGES)


def test_the_ridges_are_those_of_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "concepts" / "compensation.md").read_text()
    assert (len(RIDGES), RIDGES[0], RIDGES[-1], sorted(RIDGES)) == (7, 0.003, 3.0, list(RIDGES))
    assert "seven values between 0.003 and 3" in " ".join(page.split())


def test_each_half_counts_in_the_choice_of_a_ridge():
    z, r = _samples(1, 40, 5, 2)
    rough, exact = (_moments(z, r + noise * torch.randn_like(r)) for noise in (40.0, 0.0))
    problem, errors = _all(z, r), {}
    for ridge in RIDGES:
        halves = ((rough, exact), (exact, rough))
        errors[ridge] = sum(tested.error(problem, fitted.solve(problem, ridge)) for fitted, tested in halves)
    best = min(reversed(RIDGES), key=lambda ridge: errors[ridge])
    assert choose_ridge((rough, exact), problem) == choose_ridge((exact, rough), problem) == best


def test_a_solution_costs_a_third_of_the_cube_for_each_different_pattern():
    allowed = torch.tensor([[True, True, True, False], [False, False, True, False], [True, True, True, False]])
    assert pattern_cost(allowed) == pytest.approx((27 + 1) / 3)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_means_and_second_moments_are_those_of_the_samples_however_few(count):
    z, r = _samples(3, count, 4, 2)
    moments = _moments(z, r, pieces=count)
    torch.testing.assert_close(moments.mean, z.mean(0), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(moments.second_moment(centred=False), z.T @ z / count, atol=1e-12, rtol=1e-12)
    centred = z - z.mean(0)
    torch.testing.assert_close(moments.second_moment(centred=True), centred.T @ centred / count, atol=1e-12, rtol=1e-9)


def test_without_samples_all_means_are_zero():
    moments = Moments(3, 2, torch.device("cpu"))
    assert not moments.mean.any()
    assert not moments.second_moment(centred=True).any()
