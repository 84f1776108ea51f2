"""What the tool accepts is lossless where the units were dead, on networks that nobody listed."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from tests.surgery import random_networks

SEEDS = range(40)
ACCEPTED = 0.85


@cache
def removed(seed):
    """A network, and the same without its dead units, or None if that was refused; asked for twice, done once."""
    case = random_networks.case(seed)
    examples = [(torch.randn(2, 5, random_networks.INPUTS).double(),), (torch.randn(3, 8, 3).double(),)]
    try:
        amount = Amount(count=case.dead)
        return case, prune(case.model, {}, examples, names=case.layers, amount=amount, scorer=living).model
    except SurgeryError:
        return case, None


def living(model, trace):
    """A score that is 0 for the dead units: what would make them is 0."""
    sums = np.zeros(trace.atoms.count)
    parameters = dict(model.named_parameters())
    for (name, axis), ids in trace.atoms.axes.items():
        if trace.atoms.roles[name, axis] == "out" and name in parameters:
            others = [other for other in range(parameters[name].dim()) if other != axis]
            made = parameters[name].detach().abs()
            np.add.at(sums, trace.atoms.roots(ids), (made.sum(others) if others else made).numpy())
    return (sums > 0).astype(float)


@torch.no_grad()
def difference(before, after):
    """Largest difference of the outputs, relative to at least 1, at a size that was not traced."""
    x = torch.randn(4, 11, random_networks.INPUTS).double()
    pairs = zip(before(x), after(x), strict=True)
    return max(float(((new - old).abs() / old.abs().clamp(min=1)).max()) for old, new in pairs)


@pytest.mark.parametrize("seed", SEEDS)
def test_dead_units_leave_random_networks_without_a_trace(seed):
    case, smaller = removed(seed)
    if smaller is not None:
        assert all(
            small.hidden_size == large.hidden_size - case.dead
            for small, large in zip(smaller.rnns, case.model.rnns, strict=True)
        )
        assert difference(copy.deepcopy(case.model), smaller) <= 1e-9, case.name


def test_few_of_them_are_refused():
    refused = [case.name for case, smaller in map(removed, SEEDS) if smaller is None]
    assert len(refused) <= (1 - ACCEPTED) * len(SEEDS), refused
