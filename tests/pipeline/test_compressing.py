"""No step passes that did nothing, gave zeroed weights back, or broke the weights: whichever method it is."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from compressor import recipe
from compressor.errors import CompressorError, MethodError
from compressor.methods.base import Method, StepResult
from compressor.methods.retrain import Retrain
from compressor.methods.tie_layers import TieLayers
from compressor.pipeline.compressing import compress
from compressor.pipeline.folder import RunFolder
from compressor.pipeline.setting import Setting
from compressor.progress import Silent
from compressor.report import Change
from compressor.task.guard import GuardedTask
from tests.methods.conftest import SignTask
from tests.pipeline.test_dry_run import Good


class Scripted(Method):
    """Does to the model what a test asks for."""

    method: Literal["scripted"] = "scripted"
    changed: bool = True
    may_keep: bool = False
    weight: float = 0.0

    def check(self, model):
        """Nothing to refuse."""

    def apply(self, state, context):
        model = copy.deepcopy(state.model)
        with torch.no_grad():
            model.rnn.weight_hh_l0[0, 0] = self.weight
        change = Change(name="rnn.weight_hh_l0", action="trained")
        return StepResult(
            replace(state, model=model), (change,) if self.changed else (), may_change_nothing=self.may_keep
        )


def step(folder, masked=False, **options):
    """One step on a network with a mask that hides one weight, if it is to have one."""
    torch.manual_seed(0)
    task = GuardedTask(Good(), __file__)
    model = task.model().eval()
    mask = torch.ones_like(model.rnn.weight_hh_l0, dtype=torch.bool)
    mask[0, 0] = False
    task.masks = {"rnn.weight_hh_l0": mask} if masked else {}
    chosen = recipe.load("int8").model_copy(update={"steps": (Scripted(**options),)})
    cpu = torch.device("cpu")
    with RunFolder(folder, chosen, cpu, quick=True, force=False) as opened:
        return compress(Setting(chosen, task, opened, cpu, 1, True, False, 1, Silent()), model)


def test_a_step_that_changed_something_is_in_the_report(tmp_path):
    _, reports = step(tmp_path, masked=True)
    assert [change.name for change in reports[0].changes] == ["rnn.weight_hh_l0"]


def test_a_step_that_changed_nothing_is_an_error_that_says_what_it_looked_at(tmp_path):
    with pytest.raises(MethodError) as caught:
        step(tmp_path, changed=False)
    assert caught.value.message.startswith(
        "`steps.0` (scripted): it changed nothing; it looked at `rnn.weight_ih_l0`, "
    )


def test_a_step_that_keeps_what_it_was_given_as_the_best_is_none(tmp_path):
    _, reports = step(tmp_path, changed=False, may_keep=True)
    assert reports[0].changes == ()


def test_a_step_that_fills_a_pruned_weight_is_a_fault_of_the_tool(tmp_path):
    with pytest.raises(CompressorError, match=r"`scripted` did not hold the mask of `rnn.weight_hh_l0`"):
        step(tmp_path, masked=True, weight=0.5)


def test_weights_that_are_not_finite_are_named(tmp_path):
    with pytest.raises(MethodError, match=r"weights are not finite after it: rnn.weight_hh_l0"):
        step(tmp_path, weight=float("nan"))


def test_the_report_counts_the_steps_of_loops_on_the_evaluation_data(tmp_path):
    class Looping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(5, 5) for _ in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x[:, -1, :2]

    class Task(SignTask):
        def model(self):
            torch.manual_seed(0)
            return Looping()

    task = GuardedTask(Task(), __file__)
    steps = (TieLayers(share="all", exit="latent_diff", threshold=1.0), Retrain(epochs=1))
    chosen = recipe.load("int8").model_copy(update={"steps": steps})
    cpu = torch.device("cpu")
    with RunFolder(tmp_path / "run", chosen, cpu, quick=True, force=False) as opened:
        state, reports = compress(Setting(chosen, task, opened, cpu, 1, True, False, 1, Silent()), task.model().eval())
    for report in reports:  # of training too, which does not count its own steps
        assert 1.0 <= report.facts["mean steps of `layers.0` (at most 3)"] <= 3.0
        assert report.facts["largest number of steps of `layers.0` (at most 3)"] in (1.0, 2.0, 3.0)
    assert sum(state.model.layers[0].taken.values()) == 101  # samples of the task's `evaluate`, and of nothing before
