"""The synthetic tasks: targets as a naive loop finds them, chance as it is said, the same for the same seed."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.probing.associative_recall import AssociativeRecall
from compressor.probing.long_gap import LongGap
from compressor.probing.state_tracking import StateTracking
from compressor.probing.tasks import IGNORED, accuracy, scored

TASKS = [AssociativeRecall(), AssociativeRecall(6, 3, 4), StateTracking(), StateTracking(moves=6), LongGap()]
SEEDS = st.integers(0, 2**32 - 1)


def drawn(task, seed, batch, length):
    return task.draw(torch.Generator().manual_seed(seed), batch, length)


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_tokens_and_targets_are_in_their_ranges_at_the_trained_length_and_at_twice_it(task):
    for length in (task.length, 2 * task.length):
        tokens, targets = drawn(task, 0, 7, length)
        asked = targets[targets != IGNORED]
        assert tokens.shape == targets.shape == (7, length)
        assert 0 <= tokens.min() <= tokens.max() < task.tokens
        assert 0 <= asked.min() <= asked.max() < task.classes
        assert bool(scored(targets).any(1).all())


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_the_same_seed_draws_the_same_and_another_does_not(task):
    first, again, other = (drawn(task, seed, 11, task.length) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(3, 33))
def test_recall_asks_for_the_value_that_came_with_the_key(seed, length):
    task = AssociativeRecall(symbols=11)
    tokens, targets = drawn(task, seed, 3, length)
    pairs = length // 3
    for row, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
        shown = dict(zip(row[: 2 * pairs : 2], row[1 : 2 * pairs : 2], strict=True))
        assert len(shown) == len(set(shown.values())) == pairs
        assert wanted == [IGNORED] * (2 * pairs) + [shown[key] - 11 for key in row[2 * pairs :]]


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(1, 23), st.sampled_from([2, 6]))
def test_the_state_is_the_product_of_all_moves_so_far(seed, length, moves):
    elements = list(itertools.permutations(range(3)))
    chosen = {2: [(1, 0, 2), (1, 2, 0)], 6: elements}[moves]
    tokens, targets = drawn(StateTracking(moves=moves), seed, 3, length)
    for row, wanted in zip(tokens.tolist(), targets.tolist(), strict=True):
        cups = [0, 1, 2]  # what lies where: a move takes it from place k to move[k]
        for step, target in zip(row, wanted, strict=True):
            cups = [chosen[step][place] for place in cups]
            assert elements[target] == tuple(cups)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.integers(2, 29))
def test_a_query_after_the_gap_asks_for_the_first_token(seed, length):
    tokens, targets = drawn(LongGap(symbols=5), seed, 3, length)
    assert bool((tokens[:, -1] == 5).all())
    assert bool((tokens[:, 0] < 5).all())
    expected = torch.where(tokens == 5, tokens[:, :1], IGNORED)
    assert torch.equal(targets, expected)


def test_the_order_of_moves_counts():
    tokens, targets = drawn(StateTracking(), 0, 512, 2)
    ends = {tuple(row): int(target[-1]) for row, target in zip(tokens.tolist(), targets, strict=True)}
    assert ends[0, 1] != ends[1, 0]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_constant_answer_is_no_better_than_chance(task):
    for length in (task.length, 2 * task.length):
        _, targets = drawn(task, 1, 4096, length)
        counts = torch.bincount(targets[scored(targets)], minlength=task.classes)
        assert float(counts.max() / counts.sum()) < task.chance(length) + 0.02


def test_whoever_knows_the_values_but_not_the_keys_is_right_by_chance():
    task = AssociativeRecall()
    tokens, targets = drawn(task, 1, 4096, task.length)
    guess = (tokens[:, 1:2] - task.symbols).expand_as(targets)  # the first value
    assert float((guess == targets)[scored(targets)].double().mean()) == pytest.approx(task.chance(12), abs=0.02)


def test_accuracy_counts_the_asked_positions_of_the_second_half():
    task = StateTracking(length=7)

    def right_in_the_first_half(tokens):
        _, targets = drawn(task, 3, 13, 7)
        scores = torch.nn.functional.one_hot(targets, 6).float()
        scores[:, 4:] = scores[:, 4:].roll(1, -1)
        return scores

    assert accuracy(right_in_the_first_half, task, torch.Generator().manual_seed(3), 13, 7) == 0.0
    assert scored(torch.tensor([[1, 1, IGNORED, 1, IGNORED]])).tolist() == [[False, False, False, True, False]]


def test_the_easier_recall_has_no_easier_one():
    easier = AssociativeRecall().easier()
    assert easier.chance(easier.length) == 0.5
    assert easier.easier() is None
    assert StateTracking().easier() is None


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: AssociativeRecall(symbols=4).chance(18), "would take 6 pairs of 4 symbols"),
        (lambda: AssociativeRecall().chance(2), "would take 0 pairs"),
        (lambda: StateTracking(moves=3), "no set of 3 moves"),
        (lambda: drawn(StateTracking(), 0, 1, 0), "a sequence of 0 moves"),
        (lambda: drawn(LongGap(), 0, 1, 1), "a gap in 1 positions"),
    ],
)
def test_what_cannot_be_drawn_is_refused(ask, message):
    with pytest.raises(UsageError, match=message):
        ask()
