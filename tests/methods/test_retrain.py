from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError, TaskError
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.nn.accelerators import autocasts_to_bf16
from compressor.task.guard import GuardedTask
from compressor.testing import RandomTask
from tests.methods.conftest import (
    BATCH,
    CHANNELS,
    CLASSES,
    HIDDEN,
    SignTask,
    Tagger,
    make_context,
    same,
    weights,
)
from tests.surgery.trace.test_entering import AXES as STATES
from tests.surgery.trace.test_entering import Streaming
from tests.surgery.trace.test_entering import example as states_example


def test_retraining_learns_the_task_and_reports_every_epoch(state, context):
    result = Retrain(epochs=8, lr=0.03).apply(state, context)
    assert [row["epoch"] for row in result.history] == list(range(1, 9))
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    assert result.history[-1]["metric"] > 0.9
    assert {row["lr"] for row in result.history} == {0.03}
    assert not result.state.model.training


def test_each_module_that_was_trained_is_a_change(state, context):
    changes = Retrain().apply(state, context).changes
    assert [(change.name, change.action) for change in changes] == [("rnn", "trained"), ("head", "trained")]
    assert [change.parameters_after for change in changes] == [3 * 7 * (5 + 7 + 7 + 7) + 4 * 3 * 7, 7 * 2 + 2]


def test_the_models_that_went_in_stay_as_they_were(state, context):
    before = weights(state.model)
    Retrain(distill=True, distill_hidden=("rnn",)).apply(state, context)
    assert same(weights(state.model), before)
    assert not state.model.rnn._forward_hooks


@pytest.mark.parametrize("options", [{}, {"noise_eta": 0.3}, {"distill": True, "distill_hidden": ("rnn",)}])
def test_the_same_seed_gives_the_same_bits_with_dropout_and_noise(options):
    torch.manual_seed(0)
    teacher, student = Tagger().eval(), Tagger(hidden=5, dropout=0.5).eval()
    results = []
    for global_seed, seed in [(1, 7), (2, 7), (1, 8)]:
        torch.manual_seed(global_seed)
        context = make_context(teacher, SignTask(), seed=seed)
        results.append(weights(Retrain(lr=0.01, **options).apply(State(student), context).state.model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_torchs_global_generator_is_left_alone(state, context):
    before = torch.get_rng_state()
    Retrain().apply(state, context)
    assert torch.get_rng_state().equal(before)


def test_frozen_parameters_are_skipped_and_said_so(state, context):
    state.model.head.weight.requires_grad_(False)
    result = Retrain().apply(state, context)
    assert [(skip.name, skip.reason) for skip in result.skipped] == [
        ("head.weight", "frozen: `requires_grad` is False")
    ]
    assert result.state.model.head.weight.equal(state.model.head.weight)


def test_a_parameter_without_a_gradient_is_skipped_and_said_so(state, context):
    state.model.spare = nn.Linear(3, 2, bias=False)
    (skip,) = Retrain().apply(state, context).skipped
    assert skip.name == "spare.weight"
    assert skip.reason == "unchanged: it received no gradient, or all of it is pruned"


def test_a_model_without_trainable_parameters_is_refused_early(model):
    with pytest.raises(MethodError, match="the model has no parameter to train"):
        Retrain().check(model.requires_grad_(False))


def test_a_step_that_changes_no_weight_is_an_error(state, context):
    with pytest.raises(MethodError, match=r"retraining changed none of rnn\.weight_ih_l0, .*, head\.bias"):
        Retrain(optimizer="sgd", lr=1e-30).apply(state, context)


def test_a_learning_rate_that_blows_up_is_an_error_with_a_remedy(state, context):
    with pytest.raises(MethodError, match=r"retraining broke down: the loss is nan at step [2-6] \(epoch 1\)"):
        Retrain(optimizer="sgd", lr=3e38, noise_eta=1.0).apply(state, context)


def test_a_metric_that_is_not_finite_is_an_error(state, context, task):
    task.metrics = [math.nan]
    with pytest.raises(TaskError, match="`validate` is nan"):
        Retrain().apply(state, context)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda outputs, target: outputs.sum(1), r"the task's loss has shape \(13,\)"),
        (lambda outputs, target: outputs.sum().detach(), "does not depend on any trainable parameter"),
        (lambda outputs, target: 1.0, "the task's loss is a float"),
    ],
)
@pytest.mark.parametrize("distill", [False, True])
def test_a_task_loss_that_cannot_be_trained_on_is_an_error(state, context, task, loss, message, distill):
    task.loss = loss
    with pytest.raises(MethodError, match=message):
        Retrain(distill=distill).apply(state, context)


def test_batches_that_do_not_fit_the_model_are_an_error_with_their_shapes(state, context, task):
    task.batches = lambda generator: [((torch.ones(2, 3, 11),), torch.zeros(2).long())]
    with pytest.raises(MethodError, match=r"raised RuntimeError on a training batch of inputs \(2, 3, 11\)"):
        Retrain().apply(state, context)


def test_batches_that_are_no_pairs_are_an_error(state, context, task):
    task.batches = lambda generator: [torch.ones(2, 3, 5)]
    with pytest.raises(TaskError, match=r"something else than \(inputs, target\)"):
        Retrain().apply(state, context)


def test_bf16_is_ignored_on_the_cpu_with_a_note(state, model):
    plain, bf16 = (Retrain(bf16=on).apply(state, make_context(model, SignTask())) for on in (False, True))
    assert bf16.notes == ("bf16 ignored: `cpu` is not an accelerator with bfloat16 autocast",)
    assert same(weights(plain.state.model), weights(bf16.state.model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 0.9}, "`momentum` belongs to `optimizer: sgd`, not to `adam`"),
        ({"distill_hidden": ("rnn",)}, "`distill_hidden` has no effect without `distill: true`"),
        ({"temperature": 4.0}, "`temperature` has no effect without `distill: true`"),
        (
            {"distill": True, "distill_loss": "mse", "temperature": 4.0},
            "`temperature` has no effect without `distill_loss: kl`",
        ),
        ({"noise_gamma": 0.1}, "`noise_gamma` has no effect without a `noise_eta` above 0"),
        ({"average_last": 0.5}, "`average_last` has no effect without `keep_best: true` or `early_stopping`"),
        ({"hold_back": 2}, "`hold_back` has no effect without `keep_best: true` or `early_stopping`"),
        ({"hold_back": 2, "keep_best": True}, "`hold_back` needs `distill: true`"),
        ({"quantize": "mixed", "learn_steps": True}, "`quantize: mixed` and `bits`, the average of a weight, go"),
        ({"quantize": "int4", "bits": 4.5}, "`quantize: mixed` and `bits`, the average of a weight, go together"),
        ({"quantize": "mixed", "bits": 4.5}, "`quantize: mixed` needs `learn_steps: true`"),
        ({"quantize": "int4", "start": "nearest"}, "`start` has no effect without `learn_steps: true`"),
        ({"bits": 4.5}, "`bits` has no effect without `quantize"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"lr": math.inf}, "finite number"),
        ({"warmup": 1.0}, "less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Retrain(**options)


def test_written_out_defaults_are_accepted():
    options = Retrain(epochs=3, optimizer="sgd", momentum=0.9)
    assert Retrain(**options.model_dump()) == options


@pytest.mark.parametrize("bf16", [False, True])
def test_retraining_on_an_accelerator_holds_masks_and_learns(model, task, bf16, accelerator):
    mask = torch.rand_like(model.rnn.weight_hh_l0) < 0.5
    model = model.to(accelerator)
    context = make_context(model, task, device=accelerator)
    method = Retrain(epochs=5, lr=0.03, bf16=bf16, noise_eta=0.001, distill=True, distill_hidden=("rnn",))
    result = method.apply(State(model, {"rnn.weight_hh_l0": mask.to(accelerator)}), context)
    assert not result.state.model.rnn.weight_hh_l0.cpu()[~mask].any()
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    ignored = any(note.startswith("bf16 ignored") for note in result.notes)
    assert ignored == (bf16 and not autocasts_to_bf16(accelerator))


class WithStates(RandomTask):
    """Its targets hold a state of the original's size; the metric reads the scores."""

    def evaluate(self, forward):
        x, h, keep = self.example(4, 5)
        return float(forward(x, h, keep)[0].mean())


def test_targets_that_are_states_are_cut_like_the_states_of_a_smaller_model():
    torch.manual_seed(0)
    model = Streaming().eval()
    outputs = {"scores": {0: "batch", 1: "time"}, "h_out": {1: "batch"}}
    task = WithStates(STATES, outputs, states_example, model)
    context = make_context(model, task)
    units = Magnitude(prune="units", count=3, compensate=False).apply(State(model), context)
    result = Retrain(epochs=2, lr=0.01).apply(units.state, context)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


class Window(nn.Module):
    """A few positions and a state in, scores and the next state out: the module that is a file."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(CHANNELS, 2 * HIDDEN, batch_first=True), nn.Linear(2 * HIDDEN, CLASSES)

    def forward(self, x, state):
        y, state = self.rnn(x, state)
        return {"scores": self.head(y), "next_state": state}


class Windows(nn.Module):
    """Runs it over a long sequence: the state is carried on, gradients end at each window."""

    def __init__(self):
        super().__init__()
        self.window = Window()

    def forward(self, x):
        state, scores = x.new_zeros(1, len(x), 2 * HIDDEN), []
        for part in x.split(4, 1):
            result = self.window(part, state.detach())
            state = result["next_state"]
            scores.append(result["scores"])
        return torch.cat(scores, 1)


class Earlier(SignTask):
    """At every position: was the first channel positive one position before?"""

    modules, length, max_length = ("window",), 18, 40

    def model(self):
        torch.manual_seed(0)
        return Windows()

    def batches(self, generator):
        for _ in range(30):
            x = torch.randn(BATCH, self.length, CHANNELS, generator=generator)
            yield (x,), (x[:, :-1, 0] > 0).long()

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs[:, 1:].flatten(0, 1), target.flatten())

    def evaluate(self, forward):
        x = torch.randn(11, 23, CHANNELS, generator=torch.Generator().manual_seed(1))
        state, right = torch.zeros(1, 11, 2 * HIDDEN), []
        for step in range(23):
            result = forward.window(x[:, step : step + 1], state)
            state = result["next_state"]
            right.append(result["scores"][:, 0].argmax(-1) == (x[:, step - 1, 0] > 0))
        return torch.stack(right[1:]).float().mean(0)


def test_a_model_of_states_is_trained_over_many_windows_by_the_model_that_runs_it():
    task = GuardedTask(Earlier(), __file__)
    context = make_context(task.model().eval(), task)
    half = Magnitude(prune="units", ratio=0.5).apply(State(context.original), context).state
    result = Retrain(epochs=3, lr=0.02).apply(half, context)
    assert result.history[-1]["metric"] > 0.95  # step by step, although it was trained in windows of four
    assert half.model.window.rnn.hidden_size == HIDDEN
