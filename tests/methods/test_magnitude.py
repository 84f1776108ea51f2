from __future__ import annotations

import copy
import dataclasses
import math
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from tests.methods.conftest import HIDDEN, SignTask, Tagger, make_context, same, weights

I2H = ["rnn.weight_ih_l0", "rnn.weight_ih_l1"]
H2H = ["rnn.weight_hh_l0", "rnn.weight_hh_l1"]


def prune(state, context, **options):
    return Magnitude(prune="weights", **options).apply(state, context)


def pruned(result, names):
    return sum(int((~result.state.masks[name]).sum()) for name in names)


def total(model, names):
    return sum(model.get_parameter(name).numel() for name in names)


@pytest.mark.parametrize(("matrices", "names"), [("both", I2H + H2H), ("i2h", I2H), ("h2h", H2H)])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77, 1.0])
def test_the_exact_number_of_weights_goes_and_nothing_else_changes(state, context, matrices, names, sparsity):
    result = prune(state, context, sparsity=sparsity, matrices=matrices)
    assert pruned(result, names) == math.floor(sparsity * total(state.model, names) + 0.5)
    expected = weights(state.model)
    for name in names:
        expected[name][~result.state.masks[name]] = 0.0
    assert same(weights(result.state.model), expected)


def test_the_global_scope_removes_the_smallest_of_all_matrices(state, context):
    result = prune(state, context, sparsity=0.6)
    masks = result.state.masks
    magnitudes = {name: state.model.get_parameter(name).detach().abs() for name in masks}
    largest_pruned = max(float(magnitudes[name][~masks[name]].max()) for name in masks)
    smallest_kept = min(float(magnitudes[name][masks[name]].min()) for name in masks)
    assert largest_pruned < smallest_kept


def test_the_layer_scope_gives_every_matrix_the_same_sparsity(state, context):
    with torch.no_grad():
        state.model.rnn.weight_ih_l0 *= 1e-3
    result = prune(state, context, sparsity=0.3, scope="layer")
    for name in I2H + H2H:
        assert pruned(result, [name]) == math.floor(0.3 * total(state.model, [name]) + 0.5)


def test_equal_weights_are_pruned_in_the_exact_number(state, context):
    for parameter in state.model.rnn.parameters():
        nn.init.constant_(parameter, 0.5)
    assert pruned(prune(state, context, sparsity=0.5), I2H + H2H) == math.floor(total(state.model, I2H + H2H) / 2 + 0.5)


def test_the_model_that_went_in_stays_as_it_was(state, context):
    before = weights(state.model)
    prune(state, context, sparsity=0.5)
    assert same(weights(state.model), before)
    assert state.masks == {}


def test_changes_and_skips_tell_what_was_touched(state, context):
    result = prune(state, context, sparsity=1.0, matrices="h2h")
    assert [(change.name, change.action, change.note) for change in result.changes] == [
        (name, "masked", "147 of 147 pruned") for name in H2H
    ]
    assert [(change.nonzeros_before, change.nonzeros_after) for change in result.changes] == [(147, 0)] * 2
    assert [skip.name for skip in result.skipped] == [*I2H, "head.weight"]


def test_weights_pruned_before_stay_pruned_and_count(state, context):
    first = prune(state, context, sparsity=0.5, matrices="i2h")
    second = prune(first.state, context, sparsity=0.5)
    assert pruned(second, I2H + H2H) == math.floor(total(state.model, I2H + H2H) * 0.5 + 0.5)
    assert all(bool((second.state.masks[name] <= first.state.masks[name]).all()) for name in I2H)


def test_masks_of_other_weights_are_carried_on(model, context):
    mask = torch.rand_like(model.head.weight) < 0.5
    result = prune(State(model, {"head.weight": mask}), context, sparsity=0.5)
    assert result.state.masks["head.weight"].equal(mask)


class Kept:
    """Snapshots in memory, as the journal of a run keeps them in a file."""

    def __init__(self):
        self.latest = None

    def load(self):
        return self.latest

    def save(self, tensors, facts):
        self.latest = {name: item.clone() for name, item in tensors().items()}, copy.deepcopy(facts())


def test_every_round_is_trained_whatever_a_run_keeps_for_a_kill(model):
    options = {"sparsity": 0.9, "schedule": "cubic", "rounds": 4, "retrain": {"epochs": 2, "lr": 0.01}}
    plain = prune(State(model), make_context(model, SignTask()), **options)
    kept = prune(State(model), dataclasses.replace(make_context(model, SignTask()), snapshots=Kept()), **options)
    assert same(weights(kept.state.model), weights(plain.state.model))
    assert [row["loss"] for row in kept.history[:-1]] == [row["loss"] for row in plain.history[:-1]]


@pytest.mark.parametrize(("schedule", "fractions"), [("linear", [1 / 3, 2 / 3, 1]), ("cubic", [19 / 27, 26 / 27, 1])])
def test_a_schedule_reaches_the_sparsity_in_rounds_with_retraining_between(state, context, schedule, fractions):
    retrain = Retrain(epochs=2, lr=0.01)
    result = prune(state, context, sparsity=0.9, schedule=schedule, rounds=3, retrain=retrain)
    rows = [(row["round"], row.get("epoch"), row["sparsity"]) for row in result.history]
    assert [row[:2] for row in rows] == [(1, 1), (1, 2), (2, 1), (2, 2), (3, None)]
    size = total(state.model, I2H + H2H)
    assert [row[2] for row in rows[::2]] == pytest.approx([0.9 * part for part in fractions], abs=1 / size)
    assert pruned(result, I2H + H2H) == math.floor(0.9 * size + 0.5)
    assert {change.action for change in result.changes} == {"masked", "trained"}
    assert not any(result.state.model.get_parameter(name)[~result.state.masks[name]].any() for name in I2H + H2H)


def test_a_pattern_keeps_n_of_every_m_along_the_input_axis(state, context):
    result = prune(state, context, pattern="2:4", targets=("rnn.weight_hh_l0",))
    mask = result.state.masks["rnn.weight_hh_l0"]  # (21, 7): a group of 4 and one of 3
    assert (mask[:, :4].sum(1) == 2).all()
    assert (mask[:, 4:].sum(1) == 2).all()


def test_linear_weights_are_pruned_where_targets_names_them(state, context):
    result = prune(state, context, sparsity=0.5, targets=("head",))
    assert set(result.state.masks) == {"head.weight"}
    assert result.state.model.head.bias.equal(state.model.head.bias)


def test_a_shared_weight_is_masked_once(context):
    model = nn.ModuleDict({"embedding": nn.Embedding(11, 3), "head": nn.Linear(3, 11)})
    model["head"].weight = model["embedding"].weight
    result = prune(State(model), context, sparsity=0.5, targets=("*",))
    assert set(result.state.masks) == {"embedding.weight"}
    assert len(result.changes) == 1
    assert result.state.model["head"].weight is result.state.model["embedding"].weight


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(model, value):
    with torch.no_grad():
        model.rnn.weight_hh_l1[3, 2] = value
    with pytest.raises(MethodError, match=r"`rnn\.weight_hh_l1` holds 1 values that are NaN or infinite"):
        Magnitude(prune="weights", sparsity=0.5).check(model)
    with pytest.raises(MethodError, match=r"`rnn\.weight_hh_l1` holds 1 values that are NaN or infinite"):
        Magnitude(prune="units", ratio=0.5).check(model)


@pytest.mark.parametrize(
    ("again", "reason"),
    [
        ({"sparsity": 0.5}, r"rnn\.weight_ih_l0: 273 of 546 weights are pruned already, sparsity 0\.5 asks for 273"),
        ({"sparsity": 0.2, "scope": "layer"}, r"rnn\.weight_hh_l1: \d+ of 147 weights are pruned already"),
    ],
)
def test_a_step_that_would_change_nothing_is_an_error_that_names_the_layers(state, context, again, reason):
    first = prune(state, context, sparsity=0.5)
    with pytest.raises(MethodError, match=rf"`magnitude` would change nothing \(.*{reason}"):
        prune(first.state, context, **again)


def test_a_pattern_that_holds_already_is_an_error(state, context):
    first = prune(state, context, pattern="2:4")
    with pytest.raises(MethodError, match="no 4 consecutive weights have more than 2 left"):
        prune(first.state, context, pattern="2:4")


def test_a_layer_that_has_nothing_to_lose_is_skipped_with_the_reason(state, context):
    first = prune(state, context, sparsity=0.8, targets=("rnn.weight_hh_l0",))
    result = prune(first.state, context, sparsity=0.5, scope="layer")
    assert ("rnn.weight_hh_l0", "118 of 147 weights are pruned already, sparsity 0.5 asks for 74") in [
        (skip.name, skip.reason) for skip in result.skipped
    ]
    assert len(result.changes) == 3


def test_targets_that_match_nothing_are_refused_before_any_work(model):
    with pytest.raises(MethodError, match="`targets`: `lstm` matches nothing in the model"):
        Magnitude(prune="weights", sparsity=0.5, targets=("lstm",)).check(model)


def test_removing_units_gives_smaller_tensors(state, context):
    result = Magnitude(prune="units", ratio=0.5).apply(state, context)
    assert result.state.model.rnn.hidden_size == HIDDEN - 3
    assert result.state.structure
    assert result.changes


SCORES = ["l1", "l2", "lamp", "distance", "hessian", "activation", "variance", "sensitivity", "taylor", "random"]


@pytest.mark.parametrize("score", SCORES)
def test_every_score_chooses_units_and_chooses_them_again(score, state, context):
    step = Magnitude(prune="units", ratio=0.5, score=score)
    result, again = step.apply(state, context), step.apply(state, context)
    assert result.state.model.rnn.hidden_size == HIDDEN - 3
    for name, value in result.state.model.state_dict().items():
        assert torch.equal(again.state.model.state_dict()[name], value)


def test_the_scores_are_not_all_the_same(state, context):
    kept = set()
    for score in SCORES:
        model = Magnitude(prune="units", ratio=0.5, score=score, compensate=False).apply(state, context).state.model
        kept.add(tuple(model.head.weight[0].tolist()))
    assert len(kept) >= 4


def test_lamp_is_l2_within_a_layer_and_compares_layers_otherwise(state, context):
    def left(score, scope):
        step = Magnitude(prune="units", ratio=0.5, score=score, scope=scope, compensate=False)
        return weights(step.apply(state, context).state.model)

    differ = []
    for seed in range(8):
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in state.model.rnn.parameters():
                parameter.copy_(torch.randn_like(parameter) * torch.rand(1))
        assert same(left("lamp", "layer"), left("l2", "layer"))
        one, other = left("lamp", "global"), left("l2", "global")
        differ.append({name: value.shape for name, value in one.items()} != {n: v.shape for n, v in other.items()})
    assert any(differ)


def test_a_measured_score_looks_at_the_training_batches(state, context):
    with torch.no_grad():
        state.model.rnn.weight_ih_l1[[2, 2 + HIDDEN, 2 + 2 * HIDDEN]] *= 50  # large weights of a saturated unit,
        state.model.rnn.bias_ih_l1[2 + HIDDEN] = 1e4  # whose update gate is shut for good: it stays 0
    model = Magnitude(prune="units", count=1, score="variance", compensate=False).apply(state, context).state.model
    columns = [column for column in range(HIDDEN) if column != 2]
    assert torch.equal(model.head.weight, state.model.head.weight[:, columns])


def test_calibration_takes_no_more_batches_than_asked_for(state, context, task):
    Magnitude(prune="units", ratio=0.5, calibration_batches=2).apply(state, context)
    assert task.batches_given == 2
    Magnitude(prune="units", ratio=0.5, compensate=False).apply(state, context)
    assert task.batches_given == 2
    Magnitude(prune="units", ratio=0.5, compensate=False, score="variance", calibration_batches=3).apply(state, context)
    assert task.batches_given == 5


@pytest.mark.parametrize("options", [{}, {"score": "taylor", "compensate": False}])
def test_a_task_without_batches_is_refused_where_they_are_needed(options, state, context, task):
    task.batches = lambda generator: iter(())
    with pytest.raises(MethodError, match="the task's `batches` gave none"):
        Magnitude(prune="units", ratio=0.5, **options).apply(state, context)
    assert Magnitude(prune="units", ratio=0.5, compensate=False).apply(state, context).changes


def test_one_ranking_over_all_layers_gives_layers_of_their_own_sizes(state, context):
    with torch.no_grad():
        state.model.rnn.weight_hh_l1[:, :5] *= 1e-3  # spread the second layer's scores out
        state.model.head.weight[:, :5] *= 1e-3
        state.model.rnn.weight_ih_l1.view(3, HIDDEN, -1)[:, :5] *= 1e-3
        state.model.rnn.weight_hh_l1.view(3, HIDDEN, -1)[:, :5] *= 1e-3
    result = Magnitude(prune="units", ratio=0.4, scope="global").apply(state, context)
    sizes = [parameter.size(1) for name, parameter in result.state.model.named_parameters() if "weight_hh" in name]
    assert sizes == [HIDDEN, HIDDEN - 5]


def test_half_precision_weights_are_pruned_exactly(task):
    model = copy.deepcopy(Tagger()).bfloat16()
    result = prune(State(model), make_context(model, task), sparsity=0.5)
    assert pruned(result, I2H + H2H) == 273


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": "units", "sparsity": 0.5}, "`sparsity` belongs to `prune: weights`, not to `prune: units`"),
        ({"prune": "units"}, "`prune: units` needs either `ratio` or `count`"),
        ({"prune": "units", "ratio": 0.5, "count": 3}, "`prune: units` needs either `ratio` or `count`"),
        ({"prune": "units", "ratio": 1.0}, "less than 1"),
        ({"prune": "units", "count": 3, "scope": "global"}, "`scope: global` needs `ratio`"),
        ({"prune": "units", "ratio": 0.5, "ratios": {"rnn": 0.2}, "scope": "global"}, "`ratios` are ratios of single"),
        ({"prune": "weights", "sparsity": 0.5, "score": "taylor"}, "`score` belongs to `prune: units`"),
        ({"prune": "weights", "ratio": 0.5}, "`ratio` belongs to `prune: units`, not to `prune: weights`"),
        ({"prune": "weights"}, "`prune: weights` needs either `sparsity` or `pattern`"),
        ({"prune": "weights", "sparsity": 0.5, "pattern": "2:4"}, "needs either `sparsity` or `pattern`"),
        ({"prune": "weights", "pattern": "2:4", "scope": "layer"}, "`scope` goes with `sparsity`, not with `pattern`"),
        ({"prune": "weights", "pattern": "4:2"}, "`4:2` is not a pattern; write N:M with 1 <= N < M"),
        ({"prune": "weights", "pattern": "x"}, "`x` is not a pattern"),
        ({"prune": "weights", "sparsity": 0.5, "rounds": 3}, "`rounds` has no effect without `schedule`"),
        ({"prune": "weights", "sparsity": 0.5, "schedule": "cubic"}, "`schedule: cubic` needs `rounds` and `retrain`"),
        ({"prune": "weights", "sparsity": 1.5}, "less than or equal to 1"),
        ({"prune": "weights", "sparsity": 0.5, "targets": ("re:(",)}, "is not a regular expression"),
        ({"prune": "weights", "sparsty": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Magnitude(**options)


def test_written_out_defaults_are_accepted():
    options = Magnitude(prune="weights", sparsity=0.5, schedule="linear", rounds=2, retrain=Retrain())
    assert Magnitude(**options.model_dump()) == options


def test_every_method_has_its_word_a_summary_and_a_description_of_each_option():
    for word, method in METHODS.items():
        assert method.model_fields["method"].default == word
        assert method.summary
        assert all(field.description for field in method.model_fields.values())


def test_the_methods_are_known_without_importing_torch():
    code = "import sys, compressor.methods, compressor.methods.targets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_masks_do_not_depend_on_the_device(state, context, task, accelerator):
    on_cpu = prune(state, context, sparsity=0.7)
    on_cuda = prune(
        State(copy.deepcopy(state.model).to(accelerator)),
        make_context(state.model, task, device=accelerator),
        sparsity=0.7,
    )
    assert all(on_cuda.state.masks[name].cpu().equal(mask) for name, mask in on_cpu.state.masks.items())
