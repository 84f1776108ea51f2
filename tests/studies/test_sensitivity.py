"""The sensitivity map of small models, ratios that really reach a budget, and the cache."""

import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

from compressor.methods.magnitude import Magnitude
from compressor.studies import sensitivity
from compressor.studies.allocation import allocate_parameters
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


def test_a_module_that_names_a_file_which_is_nowhere_is_no_code_of_the_task(loaded, monkeypatch):
    monkeypatch.chdir(Path(loaded.file).parent)
    ghost = types.ModuleType("ghost")
    ghost.__file__ = "nowhere.py"
    monkeypatch.setitem(sys.modules, "ghost", ghost)
    assert sensitivity.cache_file(prober(loaded), (0.5,)).suffix == ".json"


def test_a_broken_cache_is_measured_again(tmp_path):
    (tmp_path / "broken.json").write_text('{"version": ')
    assert sensitivity.read_cache(tmp_path / "broken.json") is None
    assert sensitivity.read_cache(tmp_path / "none.json") is None
