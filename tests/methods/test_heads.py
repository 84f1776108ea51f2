"""`heads` on a small model that reads sequences, with PyTorch's attention and with one that the task names."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor import checkpoint
from compressor.errors import MethodError, SurgeryError, TaskError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.heads import Heads
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.surgery.attention.sites import attention_sites
from tests.methods.conftest import CHANNELS, SignTask, Tagger, make_context, same, weights
from tests.surgery.attentions import HEADS, WIDTH, Encoder, Nested, Packed, Stack, bias_by_head, declared, randomized

SCORES = ["weight", "activation", "sensitivity", "taylor", "random"]


class Reader(nn.Module):
    """Some attention between two layers; the last step's scores come out."""

    def __init__(self, encoder):
        super().__init__()
        self.embed, self.encoder = nn.Linear(CHANNELS, WIDTH), encoder

    def forward(self, x):
        return self.encoder(self.embed(x))[:, -1]


class AttentionTask(SignTask):
    def __init__(self, attention=None):
        super().__init__()
        self.attention = {f"encoder.{name}": parts for name, parts in (attention or {}).items()}


def _state(kind="encoder"):
    if kind == "encoder":
        return State(randomized(Reader(Encoder()))), AttentionTask()
    attention = Packed if kind == "packed" else Nested
    return State(randomized(Reader(Stack(attention)))), AttentionTask({"layers.?": attention.PARTS})


def _apply(state, task, *, seed=0, **options):
    return Heads(**options).apply(state, make_context(state.model, task, seed=seed))


def _counts(result, task):
    return [site.heads for site in attention_sites(result.state.model, task.attention).attentions]


def test_the_word_is_known_and_says_what_it_does():
    assert METHODS["heads"] is Heads
    assert "heads of attention" in Heads.summary


@pytest.mark.parametrize("kind", ["encoder", "declared"])
@pytest.mark.parametrize("score", SCORES)
def test_every_score_takes_the_same_number_and_the_same_heads_again(kind, score):
    state, task = _state(kind)
    first, again = (_apply(state, task, ratio=0.5, score=score) for _ in range(2))
    assert _counts(first, task) == [2, 2]
    assert [change.note for change in first.changes] == [change.note for change in again.changes]
    assert same(weights(first.state.model), weights(again.state.model))
    assert first.facts == {"heads before": 8.0, "heads after": 4.0}


@pytest.mark.parametrize("kind", ["encoder", "declared"])
@pytest.mark.parametrize("score", SCORES[:-1])
def test_a_head_that_gives_nothing_is_the_first_to_go(kind, score):
    state, task = _state(kind)
    for site in attention_sites(state.model, task.attention).attentions:
        for part in site.projections:
            part.by_head(state.model)[1] = 0.0
        bias_by_head(site.value, state.model)[1] = 0.0
    result = _apply(state, task, keep=3, score=score)
    assert {change.note.partition("kept ")[2] for change in result.changes} == {"0, 2, 3"}


def test_a_ratio_is_rounded_down_and_one_head_always_stays():
    state, task = _state()
    assert _counts(_apply(state, task, ratio=0.74), task) == [2, 2]
    assert _counts(_apply(state, task, ratio=0.99), task) == [1, 1]
    assert sum(_counts(_apply(state, task, ratio=0.99, scope="global"), task)) == 2
    with pytest.raises(SurgeryError, match=r"0\.24 of its 4 heads, rounded down, is none") as caught:
        _apply(state, task, ratio=0.24)
    assert caught.value.hint.startswith("raise `ratio`")


def test_targets_and_ignore_choose_attentions_or_what_holds_them():
    state, task = _state()
    result = _apply(state, task, keep=1, targets=("encoder.encoder.layers.0",))
    assert _counts(result, task) == [1, HEADS]
    assert [(skip.name, skip.reason) for skip in result.skipped] == [
        ("encoder.encoder.layers.1.self_attn", "not named in `targets`")
    ]
    assert _counts(_apply(state, task, keep=1, ignore=("*.0.self_attn",)), task) == [HEADS, 1]


def test_a_name_that_is_no_attention_is_refused_with_the_candidates():
    state, task = _state()
    with pytest.raises(MethodError, match="`embed` matches only `embed`, which is not an attention") as caught:
        _apply(state, task, keep=1, targets=("embed",))
    assert "`encoder.encoder.layers.0.self_attn`" in caught.value.hint
    with pytest.raises(MethodError, match=r"`encoder\.encoder\.layer\.0` matches nothing"):
        Heads(keep=1, targets=("encoder.encoder.layer.0",)).check_task(state.model, task)


def test_a_model_without_attention_is_refused_before_any_work():
    with pytest.raises(MethodError, match="the model has no multi-head attention") as caught:
        Heads(keep=1).check_task(Tagger(), SignTask())
    assert "the task's `attention`" in caught.value.hint


def test_weights_that_are_not_finite_are_refused():
    state, task = _state()
    with torch.no_grad():
        state.model.encoder.encoder.layers[0].self_attn.in_proj_weight[3, 3] = float("nan")
    with pytest.raises(MethodError, match=r"`encoder\.encoder\.layers\.0\.self_attn\.in_proj_weight` holds 1 values"):
        Heads(keep=1).check_task(state.model, task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs either `ratio` or `keep`"),
        ({"ratio": 0.5, "keep": 2}, "needs either `ratio` or `keep`"),
        ({"keep": 2, "scope": "global"}, "`scope: global` needs `ratio`"),
        ({"keep": 0}, "greater than or equal to 1"),
        ({"ratio": 1.0}, "less than 1"),
        ({"ratio": 0.5, "targets": ("re:[",)}, "is not a regular expression"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Heads(**options)


def test_a_task_without_batches_is_refused_where_they_are_needed():
    state, task = _state()
    task.batches = lambda generator: iter(())
    with pytest.raises(MethodError, match="the task's `batches` gave none"):
        _apply(state, task, keep=2)
    assert _apply(state, task, keep=2, compensate=False, score="weight").changes


@pytest.mark.parametrize("kind", ["encoder", "declared"])
def test_compensation_brings_the_outputs_closer_on_other_data(kind):
    state, task = _state(kind)
    x = torch.randn(101, 3, CHANNELS, generator=torch.Generator().manual_seed(5))
    errors = {}
    for compensate in (False, True):
        result = _apply(state, task, keep=2, compensate=compensate)
        with torch.no_grad():
            errors[compensate] = float((result.state.model(x) - state.model(x)).square().mean())
    assert errors[True] < 0.8 * errors[False]


def test_the_control_takes_as_many_heads_at_random():
    state, task = _state()
    method = Heads(ratio=0.5, compare=True)
    assert list(method.controls()) == ["random"]
    control = method.controls()["random"](state, make_context(state.model, task, seed=3))
    assert _counts(control, task) == [2, 2]
    assert Heads(ratio=0.5).controls() == {}


@pytest.mark.parametrize("kind", ["encoder", "declared"])
def test_heads_twice_then_feed_forward_units_then_loaded_again(kind, tmp_path):
    """Every layer of the two-step record is rebuilt in the task's own class."""
    state, task = _state(kind)
    after = _apply(state, task, keep=3).state
    after = _apply(after, task, keep=2).state
    if kind == "encoder":
        context = make_context(state.model, task)
        after = Magnitude(prune="units", ratio=0.5, targets=("*.linear1",)).apply(after, context).state
        assert after.model.encoder.encoder.layers[0].linear1.weight.shape == (9, WIDTH)
    checkpoint.save(tmp_path, after.model, after.structure)
    task.model = lambda: randomized(_state(kind)[0].model, seed=9)
    loaded = checkpoint.load(tmp_path, task)
    assert same(weights(loaded), weights(after.model))
    x = torch.randn(5, 4, CHANNELS)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), after.model(x), rtol=0.0, atol=0.0)


def test_a_record_is_of_no_use_without_the_tasks_declaration(tmp_path):
    state, task = _state("packed")
    after = _apply(state, task, keep=2).state
    checkpoint.save(tmp_path, after.model, after.structure)
    task.model, task.attention = lambda: _state("packed")[0].model, {}
    with pytest.raises(Exception, match="which is none by the task's `attention`"):
        checkpoint.load(tmp_path, task)


@pytest.mark.parametrize("first", ["heads", "masks", "units"])
def test_steps_of_magnitude_before_and_after_hold(first):
    state, task = _state()
    context = make_context(state.model, task)
    masks = Magnitude(prune="weights", sparsity=0.5, targets=("*.self_attn", "*.linear1"))
    units = Magnitude(prune="units", count=5, targets=("*.linear1",))
    heads = Heads(keep=2)
    orders = {"heads": (heads, masks, units), "masks": (masks, heads, units), "units": (units, masks, heads)}
    for step in orders[first]:
        state = step.apply(state, context).state
        for name, mask in state.masks.items():
            assert not state.model.get_parameter(name)[~mask].any()
    assert [site.heads for site in attention_sites(state.model).attentions] == [2, 2]
    assert state.model.encoder.encoder.layers[1].linear1.out_features == 12
    masked = {name.rpartition(".")[0].rpartition(".")[2] for name in state.masks}
    assert masked == {"q_proj", "k_proj", "v_proj", "out_proj", "linear1"}


def test_retraining_goes_on_from_fewer_heads_and_keeps_them():
    state, task = _state("declared")
    smaller = _apply(state, task, keep=1)
    trained = Retrain(epochs=1, lr=1e-2).apply(smaller.state, make_context(state.model, task))
    assert _counts(trained, task) == [1, 1]
    assert not same(weights(trained.state.model), weights(smaller.state.model))


def test_the_declaration_of_a_task_is_checked_against_its_model():
    from compressor.surgery.attention.declared_sites import check_declared

    check_declared(Stack(Nested), declared(Nested))
    with pytest.raises(TaskError, match=r"no module of the model fits `blocks\.\*`"):
        check_declared(Stack(Nested), {"blocks.*": Nested.PARTS})
