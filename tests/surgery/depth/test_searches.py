"""Searches for a chain of layers, on made-up errors: rules, trials, and the best chain against trying everything."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from compressor.surgery.depth.beam import Rules, Trials, beam_search, evenly_spaced
from compressor.surgery.depth.tree import tree_search


def rules(count, layers, *, repeats=False, reorders=False, allows=lambda chain: True):
    site = SimpleNamespace(count=count, whole=tuple(range(count)), allows=allows)
    return Rules(site, layers, repeats, reorders)


def everything(given, lengths):
    """All chains of these lengths that the rules allow, from their words."""
    chains = (chain for length in lengths for chain in itertools.product(given.site.whole, repeat=length))
    return [
        chain
        for chain in chains
        if (given.repeats or len(set(chain)) == len(chain))
        and (given.reorders or all(one <= two for one, two in itertools.pairwise(chain)))
        and given.site.allows(chain)
    ]


KINDS = [{"repeats": repeats, "reorders": reorders} for repeats in (False, True) for reorders in (False, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_is_allowed_if_its_order_its_repeats_and_its_layers_are(kind):
    given = rules(3, 2, **kind, allows=lambda chain: chain[:1] != (2,))
    allowed = {
        chain for length in (1, 2, 3) for chain in itertools.product(range(3), repeat=length) if given.allow(chain)
    }
    assert allowed == set(everything(given, (1, 2, 3)))


@pytest.mark.parametrize(
    ("count", "layers", "chain"),
    [(6, 1, (0,)), (6, 2, (0, 5)), (5, 3, (0, 2, 4)), (6, 6, (0, 1, 2, 3, 4, 5)), (12, 4, (0, 4, 7, 11)), (1, 1, (0,))],
)
def test_layers_at_equal_distances_are_the_first_the_last_and_those_between(count, layers, chain):
    assert evenly_spaced(rules(count, layers)) == chain


def test_each_chain_is_measured_once_until_all_trials_are_used_up():
    told, asked = [], []
    trials = Trials(lambda chain: asked.append(chain) or float(sum(chain)), 3, lambda: told.append(1))
    assert trials.best([(2,), (0, 1), (1,), (2,)], 2) == [(1,), (0, 1)]  # of equals the shorter
    assert trials.is_over
    assert (asked, len(told)) == ([(2,), (0, 1), (1,)], 3)
    assert trials.best([(0,), (2,)], 5) == [(2,)]  # (0,) was never measured
    assert trials.best([(0,)], 5) == []
    assert trials.of((2,)) == 2.0
    assert len(asked) == 3
    ordered = Trials(lambda chain: 1.0, 9, lambda: None)
    assert ordered.best([(1, 0), (0, 1), (2,)], 9) == [(2,), (0, 1), (1, 0)]


def errors(seed):
    """Of any chain, reproducible, with nothing to go by."""

    def error(chain):
        return float(torch.rand((), generator=torch.Generator().manual_seed(hash((seed, *chain)) % 2**31)))

    return error


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_beam_as_wide_as_all_chains_finds_the_best_of_all(kind, seed):
    given = rules(5, 3, **kind)
    trials = Trials(errors(seed), 10**6, lambda: None)
    found = beam_search(given, trials, 1000)
    if not kind["reorders"]:
        assert found == min(everything(given, (3,)), key=errors(seed))
        assert set(trials.errors) == set(everything(given, (3, 4)))
    else:
        assert errors(seed)(found) <= min(map(errors(seed), everything(rules(5, 3), (3,))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_is_greedy_and_ends_where_no_neighbour_is_better(kind, seed):
    given, error = rules(6, 3, **kind), errors(seed)
    trials = Trials(error, 10**6, lambda: None)
    found = beam_search(given, trials, 1)
    greedy = given.site.whole
    while len(greedy) > 3:
        greedy = min((greedy[:place] + greedy[place + 1 :] for place in range(len(greedy))), key=error)
    assert error(found) <= error(greedy)
    exchanged = {(*found[:place], layer, *found[place + 1 :]) for place in range(3) for layer in range(6)}
    swapped = {(found[1], found[0], found[2]), (found[0], found[2], found[1])}
    near = [chain for chain in exchanged | swapped if chain in everything(given, (3,))]
    assert error(found) == min(map(error, [found, *near]))
    assert set(near) <= set(trials.errors)


@pytest.mark.parametrize("most", [0, 1, 2, 7, 20])
@pytest.mark.parametrize("beam", [True, False])
def test_a_search_measures_no_more_chains_than_it_may_and_gives_the_best_of_them(most, beam):
    given, told = rules(5, 3), []
    trials = Trials(errors(1), most, lambda: told.append(1))
    found = beam_search(given, trials, 2) if beam else tree_search(given, trials, torch.Generator().manual_seed(0))
    assert len(trials.errors) == len(told) <= most
    measured = [chain for chain in trials.errors if len(chain) == 3 or (not beam and len(chain) < 3)]
    assert found == (min(measured, key=trials.errors.get) if measured else evenly_spaced(given))


def reachable(given):
    """Chains no longer than the stack that skipping and repeating blocks of 1 to 4 layers lead to, in words."""
    found, new = {given.site.whole}, [given.site.whole]
    while new:
        chain = new.pop()
        blocks = [
            (start, end) for start in range(len(chain)) for end in range(start + 1, min(start + 4, len(chain)) + 1)
        ]
        others = [chain[:start] + chain[end:] for start, end in blocks]
        others += [
            chain[:start] + chain[start:end] * (1 + times) + chain[end:]
            for start, end in blocks
            for times in range(1, 5)
        ]
        for other in others:
            if other and len(other) <= given.site.count and other not in found and given.allow(other):
                found.add(other)
                new.append(other)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_reaches_all_that_skips_and_repeats_give_and_takes_the_best(kind):
    given = rules(4, 4, **kind)
    trials = Trials(errors(2), 10**6, lambda: None)
    found = tree_search(given, trials, torch.Generator().manual_seed(0))
    assert set(trials.errors) <= reachable(given)
    assert len(trials.errors) > (0.4 if given.repeats else 0.8) * len(reachable(given))
    assert found == min(trials.errors, key=trials.errors.get)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_measures_chains_that_are_short_enough_and_allowed(kind):
    given = rules(6, 3, **kind, allows=lambda chain: chain[0] == 0)
    trials = Trials(errors(3), 60, lambda: None)
    found = tree_search(given, trials, torch.Generator().manual_seed(1))
    assert all(len(chain) <= 3 and given.allow(chain) for chain in trials.errors)
    assert {chain for chain in trials.errors if len(chain) == 3}
    assert trials.errors[found] == min(trials.errors.values())
    again = Trials(errors(3), 60, lambda: None)
    assert tree_search(given, again, torch.Generator().manual_seed(1)) == found
    assert again.errors == trials.errors
    other = Trials(errors(3), 60, lambda: None)
    tree_search(given, other, torch.Generator().manual_seed(2))
    assert list(other.errors) != list(trials.errors)


def test_a_tree_looks_more_often_where_chains_were_good():
    """Without layer 0 nothing is right: more of the chains that are tried hold it than there are."""
    given = rules(8, 8)
    trials = Trials(lambda chain: 0.01 * len(chain) if 0 in chain else 9.0, 80, lambda: None)
    tree_search(given, trials, torch.Generator().manual_seed(0))
    assert sum(0 in chain for chain in trials.errors) / len(trials.errors) > 0.6
