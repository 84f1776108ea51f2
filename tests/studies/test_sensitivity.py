"""The sensitivity map of small models, ratios from curves that are known, and the cache."""

import textwrap

import pytest
import torch

from compressor.errors import MethodError
from compressor.methods.magnitude import Magnitude
from compressor.report import Drop, LayerSensitivity, Score, Sensitivity, SensitivityPoint
from compressor.studies import sensitivity
from compressor.studies.allocation import allocate, allocate_parameters, loss_at
from compressor.task.loading import load

TASK = """
    import torch
    from torch import nn
    from compressor import Task

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.GRU(3, 8, num_layers=2, batch_first=True)
            self.second = nn.LSTM(8, 5, batch_first=True)
            self.tied = nn.GRU(8, 8, batch_first=True)
            self.out = nn.Linear(13, 2)

        def forward(self, x):
            first, last = self.first(x)
            tied = self.tied(first, last[1:])[0][:, -1]
            return self.out(torch.cat([self.second(first)[0][:, -1], tied], 1))

    class Twins(Task):
        inputs = {"x": {0: "batch", 1: "time"}}
        outputs = {"y": {0: "batch"}}
        length = 7

        def model(self):
            torch.manual_seed(3)
            return Net()

        def example(self, batch, length):
            return (torch.randn(batch, length, 3),)

        def batches(self, generator):
            yield (torch.randn(11, 7, 3, generator=generator),), torch.zeros(11).long()

        def loss(self, outputs, target):
            return nn.functional.cross_entropy(outputs, target)

        def evaluate(self, forward):
            raise RuntimeError("the evaluation data is for the end")

        def validate(self, forward):
            return forward(torch.randn(101, 7, 3, generator=torch.Generator().manual_seed(1)))[:, 0]
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    file = tmp_path_factory.mktemp("sensitivity") / "task.py"
    file.write_text(textwrap.dedent(TASK))
    return load(str(file))


def prober(loaded, **options):
    step = Magnitude(prune="units", ratio=0.5, **options)
    return sensitivity.Prober(loaded, loaded.model(), step, torch.device("cpu"))


@pytest.fixture(scope="module")
def measured(loaded):
    return sensitivity.measure(prober(loaded, targets=("first", "second", "tied", "out")), (0.1, 0.25, 0.5))


def test_every_layer_is_pruned_alone_and_tied_ones_together(measured):
    first, second, out = measured.layers
    assert (first.modules, first.sizes) == (("first", "tied"), (8, 8, 8))
    assert [(point.ratio, point.units_removed) for point in first.points] == [(0.25, 6), (0.5, 12)]
    assert (second.modules, [point.units_removed for point in second.points]) == (("second",), [1, 2])
    assert out.points == ()
    assert "output 0" in out.refused


def test_a_ratio_that_takes_no_unit_says_so(measured):
    assert "no unit would go from" in measured.layers[0].refused


def test_a_point_is_what_the_step_of_a_recipe_gives(loaded, measured):
    probe = prober(loaded)
    smaller = probe.prune({"second": 0.5}).state.model
    assert smaller.second.hidden_size == 3
    point = measured.layers[1].points[-1]
    assert point.parameters == sum(value.numel() for value in smaller.parameters())
    assert point.score.value == probe.examine(smaller).score.value
    assert point.drop.value == pytest.approx(measured.score.value - point.score.value)


def test_the_model_is_left_alone_and_validation_data_is_used(loaded, measured):
    probe = prober(loaded)
    before = {name: value.clone() for name, value in probe.model.state_dict().items()}
    sensitivity.measure(probe, (0.5,))
    assert all(value.equal(before[name]) for name, value in probe.model.state_dict().items())
    assert measured.function == "validate"


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


def test_the_parameters_of_a_real_model_reach_the_budget(loaded, measured):
    probe = prober(loaded)
    found = allocate_parameters(measured, 0.4, None, probe.parameters_left)
    assert probe.parameters_left(found.ratios) <= 0.6 * measured.parameters


def test_the_cache_knows_weights_code_ratios_and_step(loaded, measured, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = sensitivity.cache_file(prober(loaded), (0.5,))
    assert file == sensitivity.cache_file(prober(loaded), (0.5,))
    other = prober(loaded)
    with torch.no_grad():
        other.model.out.bias[0] += 1e-6
    others = [(other, (0.5,)), (prober(loaded), (0.25,)), (prober(loaded, ignore=("tied",)), (0.5,))]
    assert len({file, *(sensitivity.cache_file(probe, ratios) for probe, ratios in others)}) == 4
    sensitivity.write_cache(file, measured)
    assert tmp_path in file.parents
    assert sensitivity.read_cache(file) == measured


def test_a_broken_cache_is_measured_again(tmp_path):
    (tmp_path / "broken.json").write_text('{"version": ')
    assert sensitivity.read_cache(tmp_path / "broken.json") is None
    assert sensitivity.read_cache(tmp_path / "none.json") is None
