"""`lama` finds out how a pooling of the user's is called, replaces it by LAMA, and refuses where it cannot."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn.utils.rnn import pack_padded_sequence

from compressor.errors import MethodError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.lama import Lama
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.nn.attention.lama import LamaAttention
from compressor.nn.attention.pooling import MeanPooling, PoolingReplacement
from tests.methods.conftest import make_context, same, weights
from tests.surgery.poolings import (
    CALLS,
    EXPECTED,
    HIDDEN,
    HOPS,
    WIDTH,
    Attentive,
    Loudest,
    Model,
    model_of,
)
from tests.surgery.rebuilding import rebuilt_from


def replace(model, task=None, seed=0, **options):
    options = {"target": "pooling", "fit_steps": 20, "calibration_batches": 8} | options
    return Lama(**options).apply(State(model), make_context(model, task or Loudest(), seed=seed))


def pool_of(result):
    return result.state.model.pooling


def test_it_is_a_recipe_word():
    assert METHODS["lama"] is Lama


@pytest.mark.parametrize("kind", CALLS)
def test_the_replacement_gives_the_same_shape_and_passes_over_the_same_padding(kind):
    result = replace(model_of(kind))
    assert isinstance(pool_of(result), PoolingReplacement)
    assert isinstance(pool_of(result).pool, LamaAttention)
    features, lengths = Loudest().example(7, 13)
    with torch.no_grad():
        first = result.state.model(features, lengths)
        behind = (torch.arange(13) >= lengths[:, None])[:, :, None]
        second = result.state.model(features + 9.0 * behind, lengths)
    assert first.shape == (7, 2)
    if EXPECTED[kind][3] is None:
        assert not torch.allclose(first, second)
    else:
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", ["Attentive", "Query"])
def test_the_fit_is_better_than_the_readout_alone_and_the_fact_says_how_good(kind):
    solved, fitted = (replace(model_of(kind), fit_steps=steps).facts["explained_by_lama"] for steps in (0, 200))
    assert 0.3 < solved < fitted < 1.0


def test_the_readout_that_fits_the_old_output_is_chosen_and_another_one_can_be_asked_for():
    mixed, linear = pool_of(replace(model_of())), pool_of(replace(model_of("Query")))
    assert mixed.readout.weight.shape == (HOPS, 4)
    assert (linear.readout.in_features, linear.readout.out_features) == (4 * WIDTH, WIDTH)
    assert pool_of(replace(model_of(), readout="rows", heads=HOPS)).readout is None
    assert pool_of(replace(model_of(), readout="linear", heads=2)).readout.weight.shape == (HOPS * WIDTH, 2 * WIDTH)


@pytest.mark.parametrize(("context", "mlp"), [("learned", False), ("mean", False), ("learned", True)])
def test_the_change_tells_the_parameters_before_and_after(context, mlp):
    result = replace(model_of(), heads=2, context=context, mlp=mlp)
    (change,) = result.changes
    assert change.parameters_before == WIDTH * HIDDEN + HIDDEN + HIDDEN * HOPS + HOPS
    expected = 2 * WIDTH * 2 + 2 * HOPS + (WIDTH if context == "learned" else 0) + (WIDTH**2 + WIDTH if mlp else 0)
    assert change.parameters_after == expected == result.facts["pooling_parameters_after"]
    assert context in change.note


def test_the_model_that_went_in_and_torchs_generator_stay_as_they_were():
    model = model_of()
    before, random = weights(model), torch.random.get_rng_state()
    replace(model)
    assert same(weights(model), before)
    assert torch.equal(torch.random.get_rng_state(), random)


def test_the_weights_come_of_the_seed():
    first, second, third = (replace(model_of(), seed=seed).state.model for seed in (2, 2, 3))
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(third))


@pytest.mark.parametrize("kind", ["Numbers", "Query", "Zeros"])
def test_the_record_gives_the_users_own_class_the_same_structure(kind):
    after = replace(model_of(kind)).state
    rebuilt = rebuilt_from(after, Model(kind)).eval()
    inputs = Loudest().example(3, 7)
    assert torch.equal(rebuilt(*inputs), after.model(*inputs))


def test_masks_of_the_old_pooling_go_and_those_of_others_stay():
    model = model_of()
    masks = {
        name: torch.ones_like(model.get_parameter(name)).bool() for name in ("pooling.first.weight", "head.weight")
    }
    after = Lama(target="pooling", fit_steps=0).apply(State(model, masks), make_context(model, Loudest())).state
    assert list(after.masks) == ["head.weight"]


def test_mean_pooling_is_put_beside_it():
    model = model_of()
    (control,) = Lama(target="pooling").controls().values()
    after = control(State(model), make_context(model, Loudest())).state.model
    assert isinstance(after.pooling.pool, MeanPooling)
    assert after(*Loudest().example(3, 7)).shape == (3, 2)
    assert Lama(target="pooling", compare=False).controls() == {}


def test_retraining_taught_by_the_original_brings_the_outputs_nearer():
    model = model_of()
    context = make_context(model, Loudest())
    replaced = replace(model, heads=2, readout="linear", fit_steps=0, calibration_batches=2).state
    retrain = Retrain(epochs=8, lr=3e-3, distill=True, distill_loss="mse", distill_weight=1.0)
    after = retrain.apply(replaced, context).state
    inputs = Loudest().example(64, 11)
    with torch.no_grad():
        goal, first, second = (found(*inputs) for found in (model, replaced.model, after.model))
    assert (second - goal).square().mean() < 0.5 * (first - goal).square().mean()


def test_notes_say_how_it_is_called_and_that_it_is_no_equal():
    notes = replace(model_of(), heads=1).notes
    assert (
        "sequence `states` (B, T, D), `mask` marks the real steps; its output has 18 features, weighted sums of"
        in notes[0]
    )
    assert "% of the variance of the old one's outputs" in notes[1]
    assert "a `retrain` step has to follow" in notes[1]
    assert "With one head" in notes[-1]
    assert "The new pooling is not smaller" in replace(model_of(), readout="linear").notes[2]


class Ignoring(Attentive):
    def forward(self, states, mask=None, unused=None):
        return super().forward(states, mask)


def test_an_argument_that_makes_no_difference_is_left_aside_and_named():
    kind = (Ignoring, lambda pool, states, real: pool(states, real, states[:, 0]))
    assert "ignored: unused" in replace(model_of(kind)).notes[-1]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_run_at_another_size_is_refused():
    def call(pool, states, real):
        return pool(states.reshape(3, 11, WIDTH), real)

    with pytest.raises(
        MethodError, match="does not run on the task's example of batch size 7 and length 11: RuntimeErr"
    ):
        replace(model_of((Attentive, call)))


def test_units_are_removed_before_the_pooling_is_replaced():
    model = model_of("Lengths")
    context = make_context(model, Loudest())
    smaller = Magnitude(prune="units", ratio=0.5, targets=("rnn",)).apply(State(model), context).state
    after = Lama(target="pooling", fit_steps=0).apply(smaller, context).state
    assert after.model.pooling.pool.width == WIDTH // 2
    rebuilt = rebuilt_from(after, Model("Lengths")).eval()
    assert torch.equal(rebuilt(*Loudest().example(3, 7)), after.model(*Loudest().example(3, 7)))


def test_a_rehearsal_is_short():
    model = model_of()
    result = Lama(target="pooling").apply(State(model), make_context(model, Loudest(), quick=True))
    assert result.state.model(*Loudest().example(3, 7)).shape == (3, 2)


def test_a_fit_that_breaks_down_names_its_own_option():
    with pytest.raises(MethodError, match=r"the fit of the new pooling failed(.|\n)*hint: lower `fit_lr`"):
        replace(model_of("Query"), fit_lr=1e30)


def test_packed_sequences_are_refused():
    def packed(pool, states, real):
        return pool(pack_padded_sequence(states, real.sum(1), batch_first=True, enforce_sorted=False))

    class Summed(Attentive):
        def forward(self, states):
            return torch.zeros(len(states.sorted_indices), HOPS * WIDTH)

    with pytest.raises(MethodError, match="no sequence with 3 axes, padded and not packed"):
        replace(model_of((Summed, packed)))


@pytest.mark.parametrize(
    ("target", "message"),
    [("pool", "fits 0 modules"), ("re:(rnn|head)", "fits 2 modules of the model"), ("*", "fits 3 modules")],
)
def test_a_target_that_is_not_one_module_is_refused_before_any_work(target, message):
    with pytest.raises(MethodError) as caught:
        Lama(target=target).check(model_of())
    assert message in str(caught.value)
    assert "the model has `rnn`, `pooling`, `pooling.first`, `pooling.second`, `head`" in caught.value.hint


def test_the_parts_of_the_target_are_no_targets_of_their_own():
    result = replace(model_of(), target="pool*")
    assert [change.name for change in result.changes] == ["pooling"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "rows"}, "`readout: rows` gives 4 x 6 features, and the output has 18"),
        ({"readout": "rows", "heads": 2}, "gives 2 x 6 features"),
    ],
)
def test_a_readout_that_does_not_fit_the_sizes_is_refused(options, message):
    with pytest.raises(MethodError) as caught:
        replace(model_of(), **options)
    assert message in str(caught.value)


def test_a_model_that_reads_attributes_of_the_pooling_is_refused():
    kind = (Attentive, lambda pool, states, real: pool(states, real) * pool.second.out_features)
    with pytest.raises(MethodError, match="`pooling` cannot be replaced: the model then raises AttributeError"):
        replace(model_of(kind))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Field required"),
        ({"target": "re:("}, "is not a regular expression"),
        ({"target": "pooling", "heads": 0}, "greater than or equal to 1"),
        ({"target": "pooling", "context": "median"}, "'learned' or 'mean'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValidationError) as caught:
        Lama(method="lama", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["Attentive", "Query"])
def test_an_accelerator_finds_and_fits_the_same(kind, accelerator):
    model = model_of(kind)
    expected = replace(model)
    moved = model_of(kind).to(accelerator)
    options = {"target": "pooling", "fit_steps": 20, "calibration_batches": 8}
    found = Lama(**options).apply(State(moved), make_context(moved, Loudest(), device=accelerator))
    assert next(found.state.model.pooling.parameters()).device.type == accelerator.type
    assert found.state.structure == expected.state.structure
    assert found.facts["explained_by_lama"] == pytest.approx(expected.facts["explained_by_lama"], abs=1e-2)
