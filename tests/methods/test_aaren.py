"""Causal attention becomes an Aaren that starts near it; what is not causal is left alone with the reason."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError
from compressor.methods.aaren import Aaren
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.structure import apply_record, replace_module
from compressor.surgery.attention.causality import evidence
from compressor.surgery.attention.conversion_to_aaren import carried_masks
from tests.methods.conftest import CHANNELS, CLASSES, SignTask, make_context, same, weights
from tests.surgery.rebuilding import rebuilt_from

WIDTH, HEADS, LENGTH, BATCH = 12, 3, 7, 5


class Masked(nn.Module):
    """Attention of one kind with a mask of one kind, on every step of a sequence."""

    def __init__(self, mask="causal", batch_first=True, **options):
        super().__init__()
        self.embed = nn.Linear(CHANNELS, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, **options)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.mask = mask

    def forward(self, x):
        y = self.embed(x)
        y = y + self.attend(y if self.attention.batch_first else y.transpose(0, 1))
        return self.head(y[:, -1])

    def attend(self, y):
        batch_first = getattr(self.attention, "batch_first", True)
        length = y.size(1) if batch_first else y.size(0)
        lower = torch.ones(length, length, dtype=torch.bool).tril()
        masks = {
            "causal": ~lower, "none": None, "window": ~lower | lower.tril(-2),
            "numbers": torch.zeros(length, length).masked_fill(~lower, -1e9),
        }  # fmt: skip
        found, _ = self.attention(y, y, y, attn_mask=masks[self.mask], need_weights=False)
        return found if batch_first else found.transpose(0, 1)


class Encoder(nn.Module):
    """PyTorch's encoder, causal in training and evaluation, with padding behind; and a decoder layer above it."""

    def __init__(self, layers=2):
        super().__init__()
        self.embed = nn.Linear(CHANNELS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 13, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.decoder = nn.TransformerDecoderLayer(WIDTH, 2, 13, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        length = x.size(1)
        y, mask = self.embed(x), nn.Transformer.generate_square_subsequent_mask(length)
        padding = torch.zeros(len(x), length, dtype=torch.bool)
        padding[0, 2:] = True
        y = self.encoder(y, mask=mask, src_key_padding_mask=padding.float().masked_fill(padding, -torch.inf))
        return self.head(self.decoder(y, y, tgt_mask=mask, tgt_is_causal=True)[:, -1])


class Task(SignTask):
    length = LENGTH

    def __init__(self, **attributes):
        super().__init__()
        self.attention = {}
        vars(self).update(attributes)

    def batches(self, generator):
        for _ in range(8):
            x = torch.randn(BATCH, LENGTH, CHANNELS, generator=generator)
            yield (x,), (x[:, -1, 0] > x[:, -1, 1]).long()


def _convert(model, task=None, masks=None, **options):
    model = model.eval()
    context = make_context(model, task or Task())
    return Aaren(**({"query": "mean", "distill_steps": 0} | options)).apply(State(model, masks or {}), context)


def _model(*args, **options):
    torch.manual_seed(0)
    return Masked(*args, **options)


@pytest.mark.parametrize("mask", ["causal", "numbers"])
@pytest.mark.parametrize("options", [{}, {"batch_first": False}, {"bias": False}], ids=str)
def test_causal_attention_is_replaced_and_all_else_is_carried_over(mask, options):
    model = _model(mask, **options)
    before = weights(model)
    result = _convert(model)
    new = result.state.model.attention
    old = CompactMultiheadAttention.from_module(model.attention)
    assert isinstance(new, AarenAttention)
    assert same(weights(model), before)
    assert all(new.get_parameter(name).equal(parameter) for name, parameter in old.named_parameters())
    assert [(change.name, change.action, change.parameters_after - change.parameters_before)
            for change in result.changes] == [("attention", "replaced", WIDTH)]  # fmt: skip
    assert "does not compute the same function" in result.notes[0]


def test_the_mean_query_is_the_mean_of_the_trained_queries():
    model = _model()
    new = _convert(model, query="mean").state.model.attention
    inputs = [x for (x,), _ in Task().batches(torch.Generator().manual_seed(0))]
    used = torch.cat([x for index, x in enumerate(inputs) if index not in (3, 7)])  # every fourth is held out
    with torch.no_grad():
        queries = CompactMultiheadAttention.from_module(model.attention).q_proj(model.embed(used))
        torch.testing.assert_close(new.q_proj(new.query), queries.mean((0, 1)), atol=1e-6, rtol=1e-5)


def test_a_memory_cache_is_fitted_counted_and_rebuilt():
    model = _model()
    result = _convert(model, memory_cache=2, cache_segment=3, distill_steps=30)
    new = result.state.model.attention
    assert "2 slots of 3" in result.changes[0].note
    assert new.cache.ask.weight.any()
    more = sum(weight.numel() for weight in new.cache.parameters()) + WIDTH
    assert result.changes[0].parameters_after - result.changes[0].parameters_before == more
    x = torch.randn(3, LENGTH, CHANNELS)
    assert torch.equal(rebuilt_from(result.state, _model()).eval()(x), result.state.model(x))


def test_a_cache_without_distillation_changes_nothing():
    with_cache, without = (_convert(_model(), memory_cache=slots).state.model for slots in (2, 0))
    x = torch.randn(3, LENGTH, CHANNELS)
    torch.testing.assert_close(with_cache(x), without(x))


def test_a_length_of_segments_needs_a_cache():
    with pytest.raises(ValidationError, match="`cache_segment` has no effect without `memory_cache`"):
        Aaren(cache_segment=3)


class LongTask(Task):
    """Inputs with a long tail, of which the mean is no good summary."""

    def batches(self, generator):
        for _ in range(16):
            x = torch.randn(32, LENGTH, CHANNELS, generator=generator).exp()
            yield (x,), (x[:, -1, 0] > x[:, -1, 1]).long()


def test_fitting_the_query_and_then_all_weights_comes_nearer_each_time():
    model = _model()
    with torch.no_grad():
        model.attention.in_proj_weight[: 2 * WIDTH].mul_(3.0)  # queries that make a difference
    facts = _convert(model, LongTask(), query="fitted", distill_steps=100, distill_lr=1e-2).facts
    assert [name.removeprefix("attention: error ") for name in facts] == [
        "with the mean query", "with the fitted query", "after distillation",
    ]  # fmt: skip
    mean, fitted, distilled = facts.values()
    assert 0.4 > mean > 1.03 * fitted > 1.03**2 * distilled > 0.2


def test_attention_whose_queries_are_all_the_same_is_met_exactly():
    model = _model()
    with torch.no_grad():
        model.attention.in_proj_weight[:WIDTH] = 0.0  # only the bias is left of the queries
        model.attention.in_proj_bias[:WIDTH].normal_()
    result = _convert(model, query="mean")
    assert result.facts["attention: error with the mean query"] < 1e-10
    x = torch.randn(3, 11, CHANNELS)
    with torch.no_grad():
        torch.testing.assert_close(result.state.model(x), model(x), atol=1e-5, rtol=1e-5)


def test_a_stage_that_comes_no_nearer_is_undone():
    model = _model()
    result = _convert(model, distill_steps=20, distill_lr=0.5)
    with_mean, distilled = result.facts.values()
    assert distilled > with_mean
    assert same(weights(result.state.model), weights(_convert(model).state.model))


def test_layers_of_pytorchs_encoder_and_decoder_are_converted_and_cross_attention_is_listed():
    torch.manual_seed(0)
    model = Encoder()
    result = _convert(model, distill_steps=5)
    assert [change.name for change in result.changes] == [
        "encoder.layers.0.self_attn", "encoder.layers.1.self_attn", "decoder.self_attn",
    ]  # fmt: skip
    (skip,) = result.skipped
    assert (skip.name, "cross-attention" in skip.reason) == ("decoder.multihead_attn", True)
    assert sum("dropped attention weights" in note for note in result.notes) == 3
    output = result.state.model(torch.randn(3, 11, CHANNELS))
    assert output.isfinite().all()


def test_padded_positions_do_not_count():
    torch.manual_seed(0)
    model = Encoder(1)
    facts = _convert(model, targets=["encoder"], query="mean").facts
    assert 0.0 < facts["encoder.layers.0.self_attn: error with the mean query"] < 1.0


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("none", "it is called without a mask, so every position sees later ones"),
        ("window", "its mask is not just causal"),
    ],
)
def test_attention_that_is_not_causal_is_refused_with_the_remedy(mask, reason):
    for targets in (None, ["attention"]):
        with pytest.raises(MethodError, match=reason) as caught:
            _convert(_model(mask), targets=targets)
        assert "give the layer a causal mask" in caught.value.hint


def test_a_layer_named_in_full_has_to_be_convertible():
    model = Encoder(1)
    with pytest.raises(MethodError, match=r"`decoder.multihead_attn` cannot become an Aaren: it attends from one"):
        _convert(model, targets=["encoder", "decoder.multihead_attn"])
    result = _convert(model, targets=["*attn"], ignore=["decoder.self_attn"])
    assert {skip.name for skip in result.skipped} == {"decoder.self_attn", "decoder.multihead_attn"}


def test_a_layer_that_looks_ahead_behind_a_causal_mask_is_found_out():
    class Peeking(nn.MultiheadAttention):
        def forward(self, query, key, value, attn_mask=None, need_weights=True):
            output, found = super().forward(query, key, value, attn_mask=attn_mask, need_weights=need_weights)
            return output + query.mean(1, keepdim=True), found

    model = _model()
    model.attention = Peeking(WIDTH, HEADS, batch_first=True)
    seen = evidence(model, ["attention"], [(torch.randn(3, 4, CHANNELS),)])
    assert seen["attention"].reason == "its outputs change with later inputs, whatever its mask says"
    with pytest.raises(MethodError, match="`Peeking` is third-party code"):
        _convert(model)


def test_a_layer_that_is_not_called_or_sees_one_position_only_is_not_believed():
    model = _model().eval()
    seen = evidence(model, ["attention"], [(torch.randn(3, 1, CHANNELS),)])
    assert "one position only" in seen["attention"].reason
    model.attend = lambda y: y
    seen = evidence(model, ["attention"], [(torch.randn(3, 4, CHANNELS),)])
    assert "it is never called" in seen["attention"].reason


def test_a_model_without_attention_is_refused():
    model = nn.Linear(3, 3)
    with pytest.raises(MethodError, match="the model has no multi-head attention"):
        Aaren().check_task(model, Task())


def test_a_model_that_reads_attention_weights_cannot_do_without():
    class Weighty(Masked):
        def attend(self, y):
            mask = torch.ones(y.size(1), y.size(1), dtype=torch.bool).triu(1)
            return self.attention(y, y, y, attn_mask=mask)[1] @ y

    torch.manual_seed(0)
    with pytest.raises(MethodError, match="cannot become an Aaren: the model then raises TypeError") as caught:
        _convert(Weighty())
    assert "`output, _ = layer(x, x, x, ...)`" in caught.value.hint


def test_masks_of_pruned_weights_go_along_and_hold():
    model = _model()
    mask = torch.rand(3 * WIDTH, WIDTH) > 0.5
    with torch.no_grad():
        model.attention.in_proj_weight[~mask] = 0.0
    masks = {"attention.in_proj_weight": mask, "head.weight": torch.ones(CLASSES, WIDTH, dtype=torch.bool)}
    result = _convert(model, masks=masks, distill_steps=10)
    names = {f"attention.{letter}_proj.weight" for letter in "qkv"} | {"head.weight"}
    assert set(result.state.masks) == names
    for index, letter in enumerate("qkv"):
        zeros = ~mask[index * WIDTH : (index + 1) * WIDTH]
        weight = result.state.model.get_parameter(f"attention.{letter}_proj.weight")
        assert not weight[zeros].any()
        assert result.state.masks[f"attention.{letter}_proj.weight"].equal(~zeros)
    assert set(carried_masks("a", {"a.q_proj_weight": mask, "ab.x": mask})) == {"q_proj.weight"}


def test_the_structure_is_rebuilt_from_the_record():
    result = _convert(_model())
    rebuilt = _model().eval()
    for record in json.loads(json.dumps(result.state.structure)):
        apply_record(rebuilt, record)
    rebuilt.load_state_dict(result.state.model.state_dict())
    x = torch.randn(3, LENGTH, CHANNELS)
    assert torch.equal(rebuilt(x), result.state.model(x))


def test_compact_attention_is_converted_and_retrained_from_the_original():
    model = _model()
    replace_module(model, "attention", CompactMultiheadAttention.from_module(model.attention))
    result = _convert(model)
    context = make_context(model.eval(), Task())
    trained = Retrain(epochs=2, lr=1e-2, distill=True).apply(result.state, context)
    query = {change.name: change for change in trained.changes}["attention"]
    assert query.parameters_after == WIDTH
    assert result.state.structure[-1]["with"] == "aaren"


def test_frozen_weights_stay_as_they_are():
    model = _model()
    model.attention.requires_grad_(False)
    new = _convert(model, distill_steps=5).state.model.attention
    assert [name for name, parameter in new.named_parameters() if parameter.requires_grad] == ["query"]
    assert new.v_proj.weight.equal(model.attention.in_proj_weight[2 * WIDTH :])


def test_the_same_seed_gives_the_same_layer_and_a_rehearsal_is_short():
    model = _model().eval()
    first, second = _convert(model, distill_steps=5), _convert(model, distill_steps=5)
    assert same(weights(first.state.model), weights(second.state.model))
    context = make_context(model, Task(), quick=True)
    assert Aaren(distill_steps=1_000_000).apply(State(model), context).changes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query": "best"}, "Input should be 'fitted' or 'mean'"),
        ({"distill_steps": 0, "distill_lr": 0.1}, "`distill_lr` has no effect with `distill_steps: 0`"),
        ({"targets": ["re:("]}, "is not a regular expression"),
        ({"distill_lr": 0.0}, "greater than 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Aaren(**options)


def test_widths_around_an_aaren_can_be_pruned_afterwards_and_are_rebuilt():
    torch.manual_seed(0)
    model, task = Encoder(1).eval(), Task()
    converted = _convert(model, task, targets=["encoder"])
    context = make_context(model, task)
    step = Magnitude(prune="units", ratio=0.5, targets=["embed", "*.linear1"], compensate=False)
    result = step.apply(converted.state, context)
    attention = result.state.model.encoder.layers[0].self_attn
    assert (attention.embed_dim, attention.head_dim, attention.out_proj.out_features) == (6, 6, 6)
    rebuilt = rebuilt_from(result.state, Encoder(1))
    x = torch.randn(3, LENGTH, CHANNELS)
    torch.testing.assert_close(rebuilt.eval()(x), result.state.model(x))


def test_a_task_without_batches_is_told_what_to_give():
    task = Task(batches=lambda generator: iter(()))
    with pytest.raises(MethodError, match="gave none, and this step measures") as caught:
        _convert(_model(), task)
    assert caught.value.hint == "let `Task.batches` give at least one"
