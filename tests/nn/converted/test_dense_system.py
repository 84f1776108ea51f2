"""A dense state starts from HiPPO-LegS, and its kernel and its inverse are the same in a file."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.nn.converted.dense_system import (
    BITS,
    DenseSystem,
    _powers,
    _powers_in_a_file,
    eliminated,
    hippo_legs,
)

CHANNELS, NUMBERS = 7, 13
DOUBLE = {"dtype": torch.float64}


def system(size=NUMBERS):
    torch.manual_seed(0)
    return DenseSystem(CHANNELS, size, DOUBLE)


def test_the_matrix_is_hippo_legs_as_published():
    a, b = hippo_legs(3)
    squares = torch.tensor([[1.0, 0.0, 0.0], [3.0, 4.0, 0.0], [5.0, 15.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(a, -torch.sqrt(squares), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(b**2, torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64))


@pytest.mark.parametrize("size", [2, NUMBERS, 64])
def test_training_starts_from_it(size):
    own, (a, b) = system(size), hippo_legs(size)
    torch.testing.assert_close(own.matrix(), a, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(own.enter, b, atol=0, rtol=0)
    torch.testing.assert_close(a + a.T, -torch.eye(size).double() - torch.outer(b, b), atol=1e-12, rtol=1e-12)


def test_a_constant_input_is_one_times_the_first_polynomial_in_the_long_run():
    """HiPPO: the state holds the coefficients of the history, here of a history of ones."""
    own = system()
    a, b = own.sampled(1.0)
    state = torch.linalg.solve(torch.eye(NUMBERS).double() - a, b.unsqueeze(-1)).squeeze(-1)  # where s stays as it is
    wanted = torch.zeros(CHANNELS, NUMBERS).double()
    wanted[:, 0] = 1.0
    torch.testing.assert_close(state.detach(), wanted, atol=1e-10, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 31, 200])
def test_powers_are_the_same_by_doubling_and_by_the_bits_of_positions(length):
    a, b = (part.detach() for part in system().sampled(1.0))
    a, b = a.transpose(1, 2), b[:, None]
    naive = [b]
    for _ in range(length - 1):
        naive.append(naive[-1] @ a)
    torch.testing.assert_close(_powers(a, b, length), torch.cat(naive, 1), atol=1e-13, rtol=1e-12)
    torch.testing.assert_close(_powers_in_a_file(a, b, length), torch.cat(naive, 1), atol=1e-13, rtol=1e-12)


def test_positions_beyond_the_bits_count_nothing():
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    powers = _powers_in_a_file(one, one, 2**BITS + 3)
    assert powers[0, : 2**BITS].sum() == 2**BITS
    assert powers[0, 2**BITS :].sum() == 0


@pytest.mark.parametrize("size", [2, NUMBERS, 64])
def test_elimination_without_pivots_inverts_what_a_step_needs_whatever_the_parameters(size):
    own = system(size)
    for weight in (own.turn, own.log_decay, own.damp):
        nn.init.normal_(weight, std=3.0)
    matrix = torch.eye(size).double() - 0.5 * own.matrix().detach()
    torch.testing.assert_close(eliminated(matrix) @ matrix, torch.eye(size).double(), atol=1e-9, rtol=0)


def test_half_precision_is_sampled_in_float32():
    torch.manual_seed(0)
    half, whole = (DenseSystem(CHANNELS, NUMBERS, {"dtype": dtype}) for dtype in (torch.float16, torch.float32))
    whole.load_state_dict(half.float().state_dict())
    a, b = half.half().sampled(1.0)
    assert (a.dtype, b.dtype) == (torch.float16, torch.float16)
    for one, other in zip((a, b), whole.sampled(1.0), strict=True):
        torch.testing.assert_close(one.float(), other, atol=2e-2, rtol=2e-2)
