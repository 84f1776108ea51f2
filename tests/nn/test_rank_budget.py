"""A budget of parameters is kept, and spent where it keeps most energy."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.nn.factorisation import largest_saving_rank, losses
from compressor.nn.rank_budget import Candidate, allocate_ranks
from tests.nn.tensors import normal

SEEDS = st.integers(0, 2**16)
FEW = settings(deadline=None, max_examples=40)


def matrix(rows, columns, seed):
    values = torch.linalg.svdvals(normal(rows, columns, seed=seed) * torch.logspace(0, -seed % 3, columns))
    return Candidate(
        rows * columns, rows + columns, losses(values.square()).tolist(), largest_saving_rank(rows, columns)
    )


def parameters(candidates, ranks):
    return sum(c.dense if ranks[name] is None else ranks[name] * c.per_rank for name, c in candidates.items())


def lost(candidates, ranks):
    return sum(0.0 if ranks[name] is None else c.losses[ranks[name]] for name, c in candidates.items())


@FEW
@given(st.integers(0, 50), st.floats(0.0, 1.0))
def test_a_budget_is_kept_and_what_is_left_of_it_does_not_pay_for_another_rank(seed, fraction):
    candidates = {str(i): matrix(*sizes, seed + i) for i, sizes in enumerate([(11, 7), (13, 13), (5, 23)])}
    least = sum(candidate.per_rank for candidate in candidates.values())
    dense = sum(candidate.dense for candidate in candidates.values())
    budget = least + int(fraction * (dense - least))
    ranks = allocate_ranks(candidates, budget)
    left = budget - parameters(candidates, ranks)
    assert left >= 0
    for name, candidate in candidates.items():
        rank = ranks[name]
        assert rank is None or 1 <= rank <= candidate.most
        assert rank is None or rank == candidate.most or candidate.per_rank > left


def test_a_budget_is_spent_nearly_as_well_as_by_trying_everything():
    candidates = {str(i): matrix(*sizes, i) for i, sizes in enumerate([(11, 7), (13, 13), (5, 23)])}
    every = [[None, *range(1, c.most + 1)] for c in candidates.values()]
    excess = []
    for budget in range(80, 361, 20):
        tried = [dict(zip(candidates, ranks, strict=True)) for ranks in itertools.product(*every)]
        best = min(lost(candidates, ranks) for ranks in tried if parameters(candidates, ranks) <= budget)
        excess.append(lost(candidates, allocate_ranks(candidates, budget)) - best)
    assert max(excess) < 0.1
    assert sum(one < 1e-9 for one in excess) >= 13  # of 15


def test_a_budget_of_everything_changes_nothing_and_one_below_rank_1_is_refused():
    candidates = {"a": matrix(11, 7, 0), "b": matrix(13, 13, 1)}
    assert allocate_ranks(candidates, 77 + 169) == {"a": None, "b": None}
    assert allocate_ranks(candidates, 18 + 26) == {"a": 1, "b": 1}
    with pytest.raises(UsageError, match="43 parameters are fewer than the 44 of rank 1 everywhere"):
        allocate_ranks(candidates, 43)


# --- layers ----------------------------------------------------------------------------------------------------------
