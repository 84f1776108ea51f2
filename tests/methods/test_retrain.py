from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError, TaskError
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.nn.accelerators import autocasts_to_bf16
from compressor.nn.integers import rows_to_nearest
from compressor.surgery.second_order.by_name import rounded_by_name
from compressor.task.guard import GuardedTask
from compressor.testing import RandomTask
from compressor.training.rounding import BLOCK, rounded
from tests.methods.conftest import (
    BATCH,
    BATCHES,
    CHANNELS,
    CLASSES,
    HIDDEN,
    SignTask,
    Tagger,
    make_context,
    same,
    weights,
)
from tests.progress import Recorder
from tests.surgery.trace.test_entering import AXES as STATES
from tests.surgery.trace.test_entering import Streaming
from tests.surgery.trace.test_entering import example as states_example

MATRICES = [f"rnn.weight_{kind}_l{layer}" for layer in range(2) for kind in ("ih", "hh")] + ["head.weight"]


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


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_in_training_ends_with_rounded_weights_that_learnt_the_task(state, context, precision):
    result = Retrain(epochs=8, lr=0.03, quantize=precision).apply(state, context)
    assert result.history[-1]["metric"] > 0.85
    weight = result.state.model.rnn.weight_hh_l0.detach()
    torch.testing.assert_close(rounded(weight, precision), weight, atol=0, rtol=1e-3)
    assert "left rounded" in result.notes[-1]


def test_learned_steps_end_with_weights_that_the_exporter_leaves_as_they_are(state, context):
    result = Retrain(epochs=8, lr=0.03, quantize="int4", learn_steps=True, keep_best=True).apply(state, context)
    assert max(row["metric"] for row in result.history) > 0.85
    weight = result.state.model.rnn.weight_hh_l0.detach().numpy()
    assert (rows_to_nearest(weight, 4, BLOCK).weight.astype("float32") == weight).all()
    with pytest.raises(ValidationError, match="`learn_steps` has no effect without `quantize"):
        Retrain(learn_steps=True)


def learned(**options):
    return Retrain(**({"epochs": 2, "lr": 0.03, "quantize": "int4", "learn_steps": True} | options))


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"quantize": "mixed", "bits": 5.0}])
def test_learned_steps_start_from_the_second_order_rounding(state, context, options):
    kept = learned(lr=1e-12, **options).apply(state, context)
    bits = {name: 8 if options.get("quantize") == "int8" else 4 for name in MATRICES}
    if "bits" in options:
        [note] = [note for note in kept.notes if note.startswith("bits: ")]
        bits = {name: int(count) for name, count in (item.split() for item in note[6:].split(", "))}
    inputs = [inputs for inputs, _ in context.first_batches(16)]
    rows = rounded_by_name(state.model, inputs, {name: (count,) for name, count in bits.items()}, BLOCK)
    assert list(bits) == MATRICES
    assert rows
    for (name, _), wanted in rows.items():
        # exp(p) of a step that was trained at this rate is 1 to the last bit
        assert torch.equal(kept.state.model.get_parameter(name), torch.from_numpy(wanted.weight).float()), name


def test_the_nearest_rounding_is_another_start(state, context):
    second, nearest = (
        learned(lr=1e-12, start=start).apply(state, context).state.model.rnn.weight_hh_l0
        for start in ("second_order", "nearest")
    )
    assert not torch.equal(second, nearest)


def test_mixed_bits_learn_the_task_and_stay_integers_of_the_chosen_bits(state, context):
    result = learned(epochs=8, quantize="mixed", bits=6.0, average_last=0.5, keep_best=True).apply(state, context)
    assert max(row["metric"] for row in result.history) > 0.9
    [note] = [note for note in result.notes if note.startswith("bits: ")]
    for name, count in (item.split() for item in note[6:].split(", ")):
        weight, bits = result.state.model.get_parameter(name).detach().numpy(), int(count)
        if bits < 16:
            rows = rows_to_nearest(weight, bits, weight.shape[1] if bits == 8 else BLOCK)
            assert np.array_equal(rows.weight.astype(np.float32), weight), name


def test_the_batches_that_are_held_back_choose_and_are_never_trained_on(state, model):
    task = SignTask()
    heard, loss = [], task.loss
    task.loss = lambda outputs, target: heard.append(target) or loss(outputs, target)
    held, _ = next(iter(SignTask().batches(torch.Generator().manual_seed(0))))
    options = {"distill": True, "hold_back": 1, "keep_best": True}
    result = Retrain(epochs=3, lr=0.03, **options).apply(state, make_context(model, task))
    assert len(heard) == 3 * (BATCHES - 1)
    assert not any(torch.equal(target, (held[0][:, -1, 0] > held[0][:, -1, 1]).long()) for target in heard)
    assert [row["distance"] > 0 for row in result.history] == [True] * 3
    # the original itself is where nothing can be nearer to it
    assert result.notes[0].startswith("the weights from before training kept: the least distance to the original")
    assert same(weights(result.state.model), weights(model))


def test_weights_nearer_to_the_original_on_what_was_held_back_are_kept_whatever_the_metric(model, task):
    torch.manual_seed(5)
    student = State(Tagger().eval())
    task.metrics = [0.9] + [0.1, 0.1] * 6
    options = {"distill": True, "distill_weight": 1.0, "distill_loss": "mse", "hold_back": 2, "average_last": 0.4}
    result = Retrain(epochs=6, lr=0.02, keep_best=True, **options).apply(student, make_context(model, task))
    distances = {
        (epoch, averaged): row[f"distance{' of the average' if averaged else ''}"]
        for epoch, row in enumerate(result.history, 1)
        for averaged in (False, True)
        if not averaged or "distance of the average" in row
    }
    assert [epoch for epoch, averaged in distances if averaged] == [4, 5, 6]  # 2.4 epochs are the last 40 %
    epoch, averaged = min(distances, key=distances.get)
    assert f"epoch {epoch} of 6 kept: the least distance to the original" in result.notes[0]
    assert result.notes[0].startswith("the mean of the weights") == averaged


def test_the_average_is_a_candidate_beside_the_last_weights(state, model, task):
    task.metrics = [0.1, 0.2, 0.9, 0.3, 0.4]  # before, epoch 1, its average, epoch 2, its average
    options = {"keep_best": True, "average_last": 1.0, "max_batches": 2, "lr": 0.03}
    result = Retrain(epochs=2, **options).apply(state, make_context(model, task))
    assert result.notes == ("the mean of the weights up to epoch 1 of 2 kept: the best validation metric",)
    assert [row["metric of the average"] for row in result.history] == [0.9, 0.4]
    one = Retrain(max_batches=1, lr=0.03).apply(state, make_context(model, SignTask())).state.model
    two = Retrain(max_batches=2, lr=0.03).apply(state, make_context(model, SignTask())).state.model
    wanted = (one.head.weight + two.head.weight) / 2
    torch.testing.assert_close(result.state.model.head.weight, wanted, atol=1e-6, rtol=1e-6)


def test_holding_back_more_than_there_is_is_refused(state, context):
    method = Retrain(distill=True, keep_best=True, hold_back=BATCHES)
    with pytest.raises(MethodError, match=f"`hold_back: {BATCHES}` leaves no batch to train on"):
        method.apply(state, context)


def test_rounding_in_training_leaves_exact_what_it_is_told_to(state, context):
    result = Retrain(epochs=1, lr=0.03, quantize="int4", keep_float=["rnn.weight_*_l0"]).apply(state, context)
    for name, is_rounded in {"weight_ih_l0": False, "weight_hh_l0": False, "weight_hh_l1": True}.items():
        weight = getattr(result.state.model.rnn, name).detach()
        assert torch.allclose(rounded(weight, "int4"), weight, atol=0, rtol=1e-3) == is_rounded, name


def test_exact_parameters_that_there_are_not_or_that_leave_nothing_to_round_are_refused(state, context):
    for patterns, said in {("lstm.*",): r"'lstm\.\*' fits no matrix", ("*",): "leaves nothing to round"}.items():
        with pytest.raises(MethodError, match=said):
            Retrain(quantize="int8", keep_float=patterns).apply(state, context)
    with pytest.raises(ValidationError, match="no effect without `quantize: int8`"):
        Retrain(keep_float=["rnn.*"])


def test_torchs_global_generator_is_left_alone(state, context):
    before = torch.get_rng_state()
    Retrain().apply(state, context)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_masks_hold_through_retraining(model, context, optimizer):
    mask = torch.rand_like(model.rnn.weight_hh_l1) < 0.3
    method = Retrain(lr=0.01, optimizer=optimizer, weight_decay=0.1, noise_eta=0.01)
    result = method.apply(State(model, {"rnn.weight_hh_l1": mask}), context)
    weight = result.state.model.rnn.weight_hh_l1
    assert not weight[~mask].any()
    assert weight[mask].all()
    assert result.state.masks["rnn.weight_hh_l1"].equal(mask)


def test_quick_takes_a_handful_of_batches_once(state, model, task):
    result = Retrain(epochs=5).apply(state, make_context(model, task, quick=True))
    assert len(result.history) == 1
    assert task.losses_taken == 4


def test_max_batches_bounds_every_epoch(state, context, task):
    Retrain(epochs=3, max_batches=2).apply(state, context)
    assert task.losses_taken == 6


@pytest.mark.parametrize("sized", [True, False])
def test_the_bar_counts_batches_where_their_number_is_known_and_epochs_elsewhere(state, context, task, sized):
    if sized:
        batches = list(task.batches(torch.Generator()))
        task.batches = lambda generator: batches
    progress = Recorder()
    Retrain(epochs=3).apply(state, dataclasses.replace(context, progress=progress))
    (bar,) = progress.bars
    assert bar.total == bar.done == (3 * BATCHES if sized else 3)
    assert any(note.startswith("epoch 3/3, loss 0.") for note in bar.notes)


def test_a_schedule_counts_batches_without_a_length_and_still_sees_the_same_data(state, model):
    constant, scheduled = SignTask(), SignTask()
    Retrain(epochs=2).apply(state, make_context(model, constant))
    result = Retrain(epochs=2, schedule="linear", lr=0.012).apply(state, make_context(model, scheduled))
    assert constant.batches_given == 2 * BATCHES
    assert scheduled.batches_given == 3 * BATCHES
    assert [row["lr"] for row in result.history] == pytest.approx([0.007, 0.001])


def test_early_stopping_waits_and_restores_the_best_weights(state, model, task):
    task.metrics = [0.4, 0.5, 0.7, 0.6, 0.7, 0.9]  # the first is that of the weights from before training
    result = Retrain(epochs=5, early_stopping=2).apply(state, make_context(model, task))
    best = SignTask()
    best.metrics = [0.0, 0.0]
    expected = Retrain(epochs=2).apply(state, make_context(model, best)).state.model
    assert len(result.history) == 4
    assert result.notes == ("weights of epoch 2 of 4 kept: the best validation metric",)
    assert same(weights(result.state.model), weights(expected))


def test_without_keep_best_the_last_weights_stay(state, model, task):
    task.metrics = [0.9, 0.1]
    other = SignTask()
    other.metrics = [0.0, 0.9, 0.1]
    last = Retrain(epochs=2).apply(state, make_context(model, task))
    best = Retrain(epochs=2, keep_best=True).apply(state, make_context(model, other))
    assert not same(weights(last.state.model), weights(best.state.model))
    assert last.notes == ()


@pytest.mark.parametrize("options", [{"keep_best": True}, {"early_stopping": 2}])
def test_training_that_makes_it_worse_gives_back_the_weights_from_before(state, model, task, options):
    task.metrics = [0.9, 0.8, 0.7, 0.6]
    result = Retrain(epochs=2, lr=0.5, **options).apply(state, make_context(model, task))
    assert same(weights(result.state.model), weights(state.model))
    assert result.may_change_nothing
    assert result.notes[0] == ("the weights from before training kept: none of 2 epochs has a better validation metric")


def test_distillation_alone_never_asks_for_labels_and_reaches_the_teacher(model, task):
    torch.manual_seed(1)
    student, (x,) = Tagger(), next(iter(SignTask().batches(torch.Generator())))[0]
    method = Retrain(epochs=20, lr=0.02, distill=True, distill_weight=1.0, distill_loss="mse")
    trained = method.apply(State(student.eval()), make_context(model, task)).state.model
    with torch.no_grad():
        distances = [nn.functional.mse_loss(net(x), model(x)).item() for net in (student, trained)]
    assert task.losses_taken == 0
    assert distances[1] < 0.2 * distances[0]


def test_hidden_states_of_a_smaller_model_are_distilled_and_the_map_is_thrown_away(model, task):
    student = Tagger(hidden=3)
    method = Retrain(distill=True, distill_hidden=("rnn",))
    trained = method.apply(State(student), make_context(model, task)).state.model
    assert weights(trained).keys() == weights(student).keys()


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


def test_an_unknown_hidden_module_is_refused_with_the_nearest_name(model):
    with pytest.raises(MethodError) as caught:
        Retrain(distill=True, distill_hidden=("rn",)).check(model)
    assert caught.value.message == "`distill_hidden`: the model has no module `rn`"
    assert caught.value.hint == "did you mean `rnn`?"


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
