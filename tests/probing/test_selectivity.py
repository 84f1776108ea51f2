"""Walks through a grammar: states follow from allowed symbols alone, and pauses leave them as they are."""

import pytest
import torch

from compressor.errors import UsageError
from compressor.probing.selectivity import Selectivity
from compressor.probing.tasks import accuracy

REGIMES = ("clean", "gaps", "distractors")


def drawn(task, batch=50, length=40, seed=0):
    return task.draw(torch.Generator().manual_seed(seed), batch, length)


@pytest.mark.parametrize("regime", REGIMES)
def test_the_state_is_where_the_allowed_symbols_lead(regime):
    task = Selectivity(regime=regime)
    tokens, targets = drawn(task)
    state = torch.zeros(50, dtype=torch.int64)
    pauses = 0
    for token, target in zip(tokens.unbind(1), targets.unbind(1), strict=True):
        known = token < task.symbols
        after = task.successors[state].gather(1, token.clamp(max=task.symbols - 1)[:, None])[:, 0]
        steps = known & (after >= 0)
        pauses += int((~steps).sum())
        state = torch.where(steps, after, state)
        assert torch.equal(state, target)
    share = pauses / tokens.numel()
    assert share == 0 if regime == "clean" else 0.25 < share < 0.35
    assert (tokens == task.symbols).any() == (regime == "gaps")


def test_a_grammar_is_connected_and_allows_and_forbids_something_everywhere():
    for seed in range(5):
        task = Selectivity(grammar=seed)
        allowed = task.successors >= 0
        assert (allowed.any(1) & ~allowed.all(1)).all()
        _, targets = drawn(task, batch=200)
        assert set(targets.unique().tolist()) == set(range(task.classes))
    assert not torch.equal(Selectivity(grammar=0).successors, Selectivity(grammar=1).successors)


def test_who_knows_the_last_symbol_only_is_near_chance():
    task = Selectivity()
    found = accuracy(
        lambda tokens: torch.nn.functional.one_hot(tokens * task.depth, task.classes).float(),
        task,
        torch.Generator().manual_seed(0),
        500,
        24,
    )
    assert 0.1 < found < 0.6
    assert task.chance(24) == pytest.approx(1 / 3)


def test_the_same_seed_gives_the_same_walks():
    assert all(torch.equal(*pair) for pair in zip(drawn(Selectivity()), drawn(Selectivity()), strict=True))


@pytest.mark.parametrize("options", [{"symbols": 1}, {"depth": 0}, {"density": 1.0}, {"pause": 1.0}])
def test_a_grammar_that_cannot_be_is_refused(options):
    with pytest.raises(UsageError, match="no grammar"):
        Selectivity(**options)
    with pytest.raises(UsageError, match="walk of 0"):
        drawn(Selectivity(), length=0)
