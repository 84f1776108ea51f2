"""Strings of random automata: what follows is allowed, every sequence has rules of its own, and counting finds them."""

import pytest
import torch

from compressor.errors import UsageError
from compressor.probing.in_context import InContextLanguage
from compressor.probing.tasks import IGNORED, accuracy, scored


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_walk_through_the_automaton_gives_the_strings_and_what_may_follow():
    task = InContextLanguage()
    tokens, targets, accepted = task.examine(generator(), 60, 50)
    successors = task.automata(generator(), 60)
    for row in range(60):
        state = 0
        for position in range(50):
            token = int(tokens[row, position])
            if token == task.symbols:
                state = 0
            elif position:
                state = int(successors[row, state, token])
            assert torch.equal(accepted[row, position], successors[row, state] >= 0)
            target = int(targets[row, position])
            if position + 1 < 50:
                following = int(tokens[row, position + 1])
                assert target == (IGNORED if following == task.symbols else following)
            assert target == IGNORED or accepted[row, position, target]
    assert (tokens[:, 0] == task.symbols).all()
    ends = (targets == IGNORED).float().mean()
    assert 0.5 / task.span < ends < 1.5 / task.span


def test_every_state_has_edges_to_others_and_every_sequence_an_automaton_of_its_own():
    task = InContextLanguage(states=5, symbols=7, edges=3)
    successors = task.automata(generator(), 300)
    degrees = (successors >= 0).sum(-1)
    assert set(degrees.unique().tolist()) == {1, 2, 3}
    assert (successors != torch.arange(5)[:, None]).all()
    for row in successors.flatten(0, 1):
        ends = row[row >= 0].tolist()
        assert len(set(ends)) == len(ends)
    assert len({tuple(own.flatten().tolist()) for own in successors}) == 300
    assert task.chance(10) == pytest.approx(float(degrees.float().mean()) / task.symbols, abs=0.02)


def by_counting(task, tokens, last):
    """The n-gram baseline (B, T): what followed most often on the same `last` symbols, else on fewer."""
    guesses = torch.zeros_like(tokens)
    for row, sequence in enumerate(tokens.tolist()):
        for position in range(len(sequence)):
            guesses[row, position] = most_often(sequence[: position + 1], last, task.symbols)
    return guesses


def most_often(seen, last, symbols):
    """What lies before a separator counts as any other symbol."""
    for order in range(min(last, len(seen)), -1, -1):
        context = seen[len(seen) - order :]
        counts = [0] * symbols
        for start in range(len(seen) - order):
            follows = seen[start + order]
            if seen[start : start + order] == context and follows != symbols:
                counts[follows] += 1
        if any(counts):
            return counts.index(max(counts))
    return 0


def test_counting_what_followed_beats_guessing_and_more_context_beats_less():
    task = InContextLanguage()
    tokens, targets, accepted = task.examine(generator(), 60, task.length)
    counts = scored(targets)
    shares = []
    for last in (0, 1, 2):
        guesses = by_counting(task, tokens, last)
        shares.append(float(accepted.gather(2, guesses[..., None])[..., 0][counts].float().mean()))
    assert task.chance(task.length) + 0.05 < shares[0] < shares[1] - 0.1
    assert shares[2] > 0.85


def test_counting_by_hand():
    task = InContextLanguage(symbols=3)
    tokens = torch.tensor([[3, 0, 1, 3, 0, 2, 0, 2, 0]])
    assert by_counting(task, tokens, 1).tolist() == [[0, 0, 0, 0, 1, 0, 1, 0, 2]]


def test_an_answer_is_right_if_it_may_follow_even_if_another_did():
    task = InContextLanguage()
    _, targets, accepted = task.examine(generator(3), 40, 30)

    def network(_):
        other = accepted.float()
        return other - 0.5 * torch.nn.functional.one_hot(targets.clamp(min=0), task.classes)

    assert accuracy(network, task, generator(3), 40, 30) == 1.0


@pytest.mark.parametrize("options", [{"edges": 0}, {"edges": 4}, {"states": 1}, {"span": 1.0}])
def test_what_cannot_be_drawn_is_refused(options):
    with pytest.raises(UsageError, match="no automaton"):
        InContextLanguage(**options)
