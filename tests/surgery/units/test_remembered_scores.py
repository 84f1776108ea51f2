"""Scores that were measured before are given again, with the same random numbers after them."""

import torch
from torch import nn

from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.remembered_scores import RememberedScores


def counting(generator):
    calls = []

    def scorer(model, seen):
        calls.append(model)
        return torch.rand(seen.atoms.count, generator=generator).double().numpy()

    return scorer, calls


def scored(known, model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scorer, calls = counting(generator)
    seen = trace(model, (torch.zeros(1, 2, 3),))
    scores = known.around(scorer, generator, ("test",))(model, seen)
    return scores.tolist(), generator.get_state(), len(calls)


def test_the_same_model_is_measured_once_and_draws_go_on_where_they_would():
    model, known = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), RememberedScores()
    first, second = scored(known, model), scored(known, model)
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])
    assert (first[2], second[2]) == (1, 0)


def test_other_weights_or_other_random_numbers_are_measured():
    model, known = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2)), RememberedScores()
    scored(known, model)
    assert scored(known, model, seed=1)[2] == 1
    with torch.no_grad():
        model[0].weight[0, 0] += 1.0
    assert scored(known, model)[2] == 1
