"""One point of every item within a budget."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from compressor.errors import UsageError
from compressor.nn.budget import Point, allocate


def halving(cost, loss, count=4):
    """Each point costs half of the one before and loses four times as much."""
    return [Point(cost >> step, loss * 4.0**step) for step in range(count)]


def test_the_loss_is_the_least_of_all_choices_that_fit():
    items = {"a": halving(64, 1.0), "b": halving(64, 0.01), "c": halving(16, 3.0)}
    for budget in range(18, 145, 7):
        chosen = allocate(items, budget)
        cost, loss = (sum(getattr(items[name][place], what) for name, place in chosen.items()) for what in FIELDS)
        least = min(
            sum(point.loss for point in points)
            for points in itertools.product(*items.values())
            if sum(point.cost for point in points) <= budget
        )
        assert cost <= budget
        assert loss <= 2.2 * least  # greedy: one step of the hull may not fit


FIELDS = ("cost", "loss")


def test_where_a_step_ends_at_the_budget_the_greedy_choice_is_the_best():
    items = {"a": halving(64, 1.0), "b": halving(64, 0.01)}
    assert allocate(items, 96) == {"a": 0, "b": 1}
    assert allocate(items, 128) == {"a": 0, "b": 0}


def test_equal_prices_go_by_the_order_of_items():
    items = {name: halving(64, 1.0) for name in "xyz"}
    assert allocate(items, 160) == allocate(items, 160) == {"x": 1, "y": 0, "z": 0}


def test_a_point_that_costs_more_and_loses_more_is_never_chosen():
    items = {"a": [Point(10, 0.0), Point(12, 5.0), Point(4, 1.0)]}
    assert allocate(items, 9) == {"a": 2}
    assert allocate(items, 12) == {"a": 0}


def test_less_than_the_cheapest_points_is_refused():
    with pytest.raises(UsageError, match="a budget of 7 is less than the smallest choice, 8"):
        allocate({"a": halving(64, 1.0)}, 7)


def test_many_items_stay_within_the_budget():
    draws = np.random.default_rng(0)
    items = {str(index): halving(int(draws.integers(8, 900)), float(draws.random())) for index in range(40)}
    total = sum(points[0].cost for points in items.values())
    losses = []
    for part in (0.3, 0.5, 0.8):
        chosen = allocate(items, int(part * total))
        assert sum(items[name][place].cost for name, place in chosen.items()) <= part * total
        losses.append(sum(items[name][place].loss for name, place in chosen.items()))
    assert losses == sorted(losses, reverse=True)


def test_points_that_cost_the_same_are_never_a_step():
    items = {"a": [Point(10, 1.0), Point(10, 0.5), Point(10, 3.0), Point(4, 2.0), Point(4, 9.0)]}
    assert allocate(items, 9) == {"a": 3}
    assert allocate(items, 10) == {"a": 0}
