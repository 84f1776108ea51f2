"""Ratios from curves that are known."""

import pytest

from compressor.errors import MethodError
from compressor.report import Drop, LayerSensitivity, Score, Sensitivity, SensitivityPoint
from compressor.studies.allocation import allocate, allocate_parameters, loss_at


def layer(name, units, *drops, ratios=(0.25, 0.5, 0.75), parameters=()):
    score = Score(metric="accuracy", value=0.0)
    left = parameters or (0,) * len(drops)
    points = [
        SensitivityPoint(ratio=r, units_removed=int(r * units), parameters=p, score=score, drop=Drop(value=d))
        for r, d, p in zip(ratios, drops, left, strict=True)
    ]
    return LayerSensitivity(modules=(name,), sizes=(units,), points=tuple(points))


def the_map(*layers, parameters=1000):
    return Sensitivity(
        version="0",
        measured_at="",
        task="T",
        function="evaluate",
        options={},
        ratios=(0.25, 0.5, 0.75),
        score=Score(metric="accuracy", value=1.0),
        parameters=parameters,
        layers=layers,
    )


def test_a_curve_is_linear_between_ratios_and_noise_is_no_reward():
    curve = layer("a", 8, -0.1, 0.2, 0.1)
    assert [loss_at(curve, ratio) for ratio in (0, 0.2, 0.5, 0.75)] == [0, 0, 0.2, 0.2]
    assert loss_at(curve, 0.375) == pytest.approx(0.1)


def test_the_budget_comes_from_the_layer_that_costs_least():
    found = allocate(the_map(layer("a", 100, 0.1, 0.2, 0.3), layer("b", 100, 0.0, 0.0, 0.5)), budget=0.25)
    assert found.ratios == {"a": 0.0, "b": 0.5}
    assert found.drop == 0.0


def test_a_larger_budget_goes_on_with_the_flattest_piece_of_any_curve():
    found = allocate(the_map(layer("a", 100, 0.1, 0.2, 0.3), layer("b", 100, 0.0, 0.0, 0.5)), budget=0.5)
    assert found.ratios == {"a": 0.5, "b": 0.5}
    assert found.drop == pytest.approx(0.2)


def test_layers_that_cost_the_same_share_evenly():
    curves = [layer(name, units, 0.0, 0.0, 0.0) for name, units in (("a", 100), ("b", 300))]
    assert allocate(the_map(*curves), budget=0.4).ratios == {"a": 0.4, "b": 0.4}


def test_the_best_of_all_allocations_is_found():
    curves = the_map(layer("a", 4, 0.05, 0.3, 0.31), layer("b", 8, 0.2, 0.21, 0.6), layer("c", 4, 0.1, 0.15, 0.9))
    every = [
        (sum(loss_at(curve, ratio) for curve, ratio in zip(curves.layers, ratios, strict=True)), ratios)
        for ratios in ((x / 4, y / 8, z / 4) for x in range(4) for y in range(7) for z in range(4))
        if 4 * ratios[0] + 8 * ratios[1] + 4 * ratios[2] >= 8
    ]
    assert allocate(curves, budget=0.5).drop == pytest.approx(min(every)[0], abs=0.02)


def test_a_ratio_that_takes_no_unit_is_never_given():
    found = allocate(the_map(layer("a", 5, 0.0, 0.0, 0.0), layer("b", 100, 0.01, 0.02, 0.03)), budget=0.02)
    assert found.ratios == {"a": 0.6, "b": 0.0}
    found = allocate(the_map(layer("a", 5, 0.0, 0.9, 0.9), layer("b", 100, 0.1, 0.2, 0.3)), budget=0.01)
    assert found.ratios == {"a": 0.2, "b": 0.01}


def test_without_a_budget_as_much_goes_as_the_drop_allows():
    found = allocate(the_map(layer("a", 100, 0.1, 0.2, 0.3)), max_drop=0.14)
    assert found.ratios == {"a": 0.35}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.8}, "80 % of the units cannot go: at the largest measured ratios it is 75 %"),
        ({"budget": 0.5, "max_drop": 0.1}, "50 % of the units costs 0.2 by the measured curves, more than 0.1; within"),
        ({"max_drop": 0.0}, "no layer can lose a unit within a drop of 0"),
    ],
)
def test_what_cannot_be_reached_is_refused_with_what_can(options, message):
    with pytest.raises(MethodError, match=message):
        allocate(the_map(layer("a", 100, 0.1, 0.2, 0.3)), **options)


def test_a_budget_of_parameters_is_raised_until_it_is_really_reached():
    curve = the_map(layer("a", 100, 0.1, 0.2, 0.3, parameters=(750, 500, 250)))
    found = allocate_parameters(curve, 0.5, None, lambda ratios: 1000 - int(800 * ratios["a"]))
    assert found.ratios["a"] == pytest.approx(0.63, abs=0.011)
