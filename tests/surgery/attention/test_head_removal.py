"""Fewer heads: what is left computes what the original computes when the removed heads add nothing."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.masks import prune_
from compressor.surgery.attention import head_scores
from compressor.surgery.attention.head_removal import prune
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.rebuild import rebuild
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.scores import random
from tests.surgery.attentions import (
    HEADS,
    WIDTH,
    Decoder,
    Encoder,
    Nested,
    Packed,
    Plain,
    Stack,
    Widths,
    bias_by_head,
    declared,
    randomized,
    written_out,
)
from tests.tolerances import SAME_FLOAT64

MODELS = {
    "encoder": Encoder,
    "encoder, time first": lambda: Encoder(batch_first=False),
    "encoder, norm first and no bias": lambda: Encoder(norm_first=True, bias=False),
    "decoder": Decoder,
    "other widths, weights given out": Widths,
    "other widths, no bias": lambda: Widths(bias=False),
    "declared": lambda: Stack(Nested),
    "declared, no bias": lambda: Stack(Nested, bias=False),
    "declared, packed": lambda: Stack(Packed),
}
PARTS = {"declared": declared(Nested), "declared, no bias": declared(Nested), "declared, packed": declared(Packed)}
LENGTHS = torch.tensor([7, 3, 1])
MASK = torch.arange(7) < LENGTHS[:, None]


def _examples(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 7, WIDTH, dtype=dtype, generator=generator)
    return [(x, MASK), (x[:2, :5],)]


def _fewer(model, parts=None, *, masks=None, scorer=None, required=(), calibration=(), **amount):
    names = [site.name for site in attention_sites(model, parts).attentions]
    amount = Amount(**(amount or {"count": 1}))
    scorer = scorer or head_scores.weight()
    examples = _examples(next(model.parameters()).dtype)
    return prune(model, masks or {}, examples, names=names, declared=parts or {}, amount=amount, scorer=scorer,
                 required=required, calibration=calibration)  # fmt: skip


def _kill(model, parts, head, what):
    """One head of every attention gives nothing: its values are 0, or nobody takes them."""
    for site in attention_sites(model, parts).attentions:
        if what == "output":
            site.output.by_head(model)[head] = 0.0
        else:
            site.value.by_head(model)[head] = 0.0
            if site.value.bias is not None:
                bias_by_head(site.value, model)[head] = 0.0


def _outputs(model, example):
    with torch.no_grad():
        outputs = model(*example)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("what", ["value", "output"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_dead_heads_go_without_loss(name, what, dtype, tolerance):
    parts = PARTS.get(name, {})
    model = randomized(MODELS[name]().to(dtype))
    _kill(model, parts, 2, what)
    result = _fewer(model, parts)
    assert all("kept 0, 1, 3" in change.note for change in result.changes)
    assert {site.heads for site in attention_sites(result.model, parts).attentions} == {HEADS - 1}
    for example in _examples(dtype):
        found, expected = _outputs(result.model, example)[0], _outputs(model, example)[0]
        torch.testing.assert_close(found, expected, atol=tolerance * float(expected.abs().max()), rtol=0.0)


class One(nn.Module):
    """One attention that a task names."""

    def __init__(self):
        super().__init__()
        self.attention = Packed()

    def forward(self, x, mask=None):
        return self.attention(x, mask)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([Plain, One]), st.integers(1, HEADS - 1), st.integers(0, 1000))
def test_what_is_left_is_the_sum_over_the_kept_heads_written_out(kind, count, seed):
    model, parts = randomized(kind().double(), seed), {"attention": Packed.PARTS} if kind is One else {}
    result = _fewer(model, parts, scorer=head_scores.of_units(random(torch.Generator().manual_seed(seed))), count=count)
    stays = [int(part) for part in result.changes[0].note.partition("kept ")[2].split(", ")]
    (site,), (x,) = attention_sites(model, parts).attentions, _examples()[1]
    expected = written_out(site, model, x, x, x, heads=stays) + (x if kind is One else 0.0)
    assert len(stays) == HEADS - count
    torch.testing.assert_close(_outputs(result.model, (x,))[0], expected, **SAME_FLOAT64)


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_model_rebuilt_from_the_record_takes_the_weights(name):
    parts = PARTS.get(name, {})
    model = randomized(MODELS[name]().double())
    twice = _fewer(_fewer(model, parts).model, parts)
    structure = (*_fewer(model, parts).structure, *twice.structure)
    rebuilt = rebuild(randomized(MODELS[name]().double(), seed=1), structure, parts).eval()
    rebuilt.load_state_dict(twice.model.state_dict())
    assert {site.heads for site in attention_sites(rebuilt, parts).attentions} == {HEADS - 2}
    for example in _examples():
        for found, expected in zip(_outputs(rebuilt, example), _outputs(twice.model, example), strict=True):
            torch.testing.assert_close(found, expected, **SAME_FLOAT64)


def test_the_mean_of_the_weights_is_taken_over_the_heads_that_are_left():
    model = randomized(Widths().double())
    result = _fewer(model, count=2)
    stays = [int(part) for part in result.changes[0].note.partition("kept ")[2].split(", ")]
    keys, values = model.keys(_examples()[1][0]), model.values(_examples()[1][0])
    _, weights = model.attention(_examples()[1][0], keys, values, average_attn_weights=False)
    torch.testing.assert_close(_outputs(result.model, _examples()[1])[1], weights[:, stays].mean(1), **SAME_FLOAT64)


def test_parameters_and_multiplications_shrink_with_the_heads_and_the_width_stays():
    model = randomized(Encoder())
    result = _fewer(model, count=3)
    layer = result.model.encoder.layers[0]
    assert isinstance(layer.self_attn, CompactMultiheadAttention)
    assert layer.self_attn.q_proj.weight.shape == (WIDTH // HEADS, WIDTH)
    assert layer.linear1.weight.shape == (17, WIDTH)
    change = result.changes[0]
    assert (change.parameters_before, change.parameters_after) == (4 * (WIDTH + 1) * WIDTH, 4 * WIDTH * 3 + 3 * 3 + 12)
    assert (result.before, result.after) == (2 * HEADS, 2)


def test_a_module_used_twice_loses_heads_once():
    model = randomized(Stack(Nested).double())
    model.layers[1] = model.layers[0]
    result = _fewer(model, {"layers.*": Nested.PARTS} | declared(Nested))
    assert [change.name for change in result.changes] == ["layers.0"]
    assert result.model.layers[0] is result.model.layers[1]
    rebuilt = rebuild(copy.deepcopy(model), result.structure, declared(Nested))
    rebuilt.load_state_dict(result.model.state_dict())


def test_masks_of_weights_are_cut_along_and_hold_after_the_refit():
    model = randomized(Stack(Nested).double())
    name = "layers.0.output.dense.weight"
    mask = torch.rand(model.get_parameter(name).shape, generator=torch.Generator().manual_seed(0)) > 0.5
    prune_(model, {name: mask})
    result = _fewer(model, declared(Nested), masks={name: mask}, calibration=_examples())
    after = result.model.get_parameter(name)
    assert result.masks[name].shape == after.shape
    assert not after[~result.masks[name]].any()


def test_masks_of_a_packed_weight_go_over_to_the_separate_ones():
    model = randomized(Encoder().double())
    name = "encoder.layers.1.self_attn.in_proj_weight"
    mask = torch.arange(WIDTH)[None].expand(3 * WIDTH, WIDTH) != 4
    prune_(model, {name: mask})
    result = _fewer(model, masks={name: mask})
    assert set(result.masks) == {f"encoder.layers.1.self_attn.{part}_proj.weight" for part in "qkv"}
    assert all(part.shape == (9, WIDTH) and not part[:, 4].any() for part in result.masks.values())


def test_the_refit_leaves_a_dead_head_out_and_comes_closer_where_heads_were_alive():
    model = randomized(Stack(Nested).double())
    _kill(model, declared(Nested), 1, "output")
    plain, fitted = (_fewer(model, declared(Nested), calibration=c) for c in ((), _examples() * 2))
    torch.testing.assert_close(plain.model.state_dict(), fitted.model.state_dict(), atol=1e-9, rtol=0.0)
    model = randomized(Stack(Nested).double())
    plain, fitted = (_fewer(model, declared(Nested), count=2, calibration=c) for c in ((), _examples() * 2))
    errors = [
        sum(float((_outputs(r.model, e)[0] - _outputs(model, e)[0]).square().sum()) for e in _examples())
        for r in (plain, fitted)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert any("layers.0.output.dense.weight" in note for note in fitted.notes)


def _reference_scores(model, site, batches):
    """Of each head: the norm of the product of its matrices, and of what it adds to the output, written out."""
    values, outputs = site.value.by_head(model), site.output.by_head(model)
    norms = [float(torch.linalg.matrix_norm(outputs[head] @ values[head])) for head in range(site.heads)]
    added = []
    taken = []
    layer = model.get_submodule(site.output.weight.rpartition(".")[0])
    handle = layer.register_forward_pre_hook(lambda module, inputs: taken.append(inputs[0]))
    for batch in batches:
        _outputs(model, batch)
    handle.remove()
    for head in range(site.heads):
        columns = slice(head * site.value_head_width, (head + 1) * site.value_head_width)
        parts = torch.cat([(part[..., columns] @ outputs[head].T).flatten(0, -2) for part in taken])
        added.append(float(parts.square().sum(-1).mean().sqrt()))
    return norms, added


def test_scores_are_those_written_out_head_by_head():
    model, parts = randomized(Stack(Nested).double()), declared(Nested)
    sites = attention_sites(model, parts).attentions
    tracer = head_scores.trace(model, sites)
    found = [score(model, sites, tracer) for score in (head_scores.weight(), head_scores.activation(_examples()))]
    for site in sites:
        for ours, theirs in zip(found, _reference_scores(model, site, _examples()), strict=True):
            assert ours[head_scores.groups(site, tracer)].tolist() == pytest.approx(theirs, rel=1e-12)


def test_over_all_attentions_the_lowest_go_and_one_head_stays_in_each():
    model = randomized(Encoder().double())
    with torch.no_grad():  # of equal means, so that the spread decides: all but one head of layer 1 are small
        value = attention_sites(model).attentions[1].value.by_head(model)
        value[:3] *= 1e-3
    result = _fewer(model, ratio=0.5, scope="global")
    assert [site.heads for site in attention_sites(result.model).attentions] == [3, 1]
    assert result.changes[1].note.endswith("kept 3")


def test_an_attention_that_loses_nothing_stays_what_it_was():
    model = randomized(Encoder().double())
    with torch.no_grad():
        attention_sites(model).attentions[1].value.by_head(model)[0] *= 1e-3
    result = _fewer(model, ratio=0.125, scope="global")
    assert type(result.model.encoder.layers[0].self_attn) is nn.MultiheadAttention
    assert [skip.name for skip in result.skipped] == ["encoder.layers.0.self_attn"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Plain(average_attn_weights=False), "takes the attention weights of each head out"),
        (Plain(attn_mask=torch.zeros(3 * HEADS, 7, 7, dtype=torch.float64)), "is made for each head outside of it"),
        (Plain(options={"add_bias_kv": True}), "it has add_bias_kv=True"),
        (Plain(heads=1), "it has one head, and one has to stay"),
    ],
    ids=["weights of each head", "mask of each head", "added keys", "one head"],
)
def test_what_cannot_lose_heads_is_refused_with_the_reason(model, message):
    with pytest.raises(SurgeryError, match="`attention`: ") as caught:
        _fewer(randomized(model.double()))
    assert message in caught.value.message


def test_of_several_attentions_those_that_cannot_are_skipped_unless_they_were_named():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.idle = Plain(), Plain(average_attn_weights=False), Plain()

        def forward(self, x, mask=None):
            return self.first(x)[0] + self.second(x)[0]

    model = randomized(Both().double())
    result = _fewer(model)
    assert [change.name for change in result.changes] == ["first.attention"]
    assert [skip.name for skip in result.skipped] == ["second.attention", "idle.attention"]
    assert result.skipped[1].reason == "it is not called in the model's forward pass"
    with pytest.raises(SurgeryError, match=r"`second\.attention`: the model takes"):
        _fewer(model, required=["second.attention"])


def test_a_number_to_keep_skips_what_has_no_more_and_asks_for_fewer_otherwise():
    model = randomized(Stack(Nested).double())
    model.layers[1] = randomized(Nested(heads=2).double())
    result = _fewer(model, declared(Nested), keep=2)
    assert [site.heads for site in attention_sites(result.model, declared(Nested)).attentions] == [2, 2]
    assert result.skipped[0].reason == "it has 2 heads, and `keep` asks for 2"
    with pytest.raises(SurgeryError, match=r"`layers\.0`: 0\.2 of its 4 heads, rounded down, is none"):
        _fewer(model, declared(Nested), ratio=0.2)


def test_heads_that_do_not_lie_one_behind_the_other_are_found_out():
    class Interleaved(Packed):
        def forward(self, x, mask=None):
            query, key, value = (
                part.unflatten(-1, (-1, self.h)).movedim(-1, 1) for part in self.qkv(x).split(self.inner, -1)
            )
            context = nn.functional.scaled_dot_product_attention(query, key, value)
            return x + self.proj(context.movedim(1, -1).flatten(2))

    with pytest.raises(SurgeryError, match=r"differs by .* from the original with the same heads silenced") as caught:
        _fewer(randomized(Stack(Interleaved).double()), declared(Packed))
    assert "one behind the other" in caught.value.hint


def test_a_size_written_into_the_code_is_told_with_its_line():
    class Fixed(Packed):
        def forward(self, x, mask=None):
            return x + self.proj(self.qkv(x)[..., 2 * WIDTH :].reshape(*x.shape[:2], WIDTH))

    with pytest.raises(SurgeryError, match=r"the smaller model cannot run: .*test_head_removal\.py:\d+, in `forward`"):
        _fewer(randomized(Stack(Fixed).double()), declared(Packed))


def test_code_that_takes_weights_out_of_pytorchs_attention_is_told_with_its_line():
    class Reading(Plain):
        def forward(self, x, mask=None):
            return self.attention(x, x, x)[0] + self.attention.in_proj_weight.sum()

    with pytest.raises(SurgeryError, match=r"the converted model cannot run: .*test_head_removal\.py:\d+") as caught:
        _fewer(randomized(Reading().double()))
    assert "`ignore`" in caught.value.hint


def test_the_model_that_went_in_is_untouched():
    for name in ("encoder", "declared"):
        model = randomized(MODELS[name]().double()).train()
        before = copy.deepcopy(model)
        result = _fewer(model, PARTS.get(name), count=2, calibration=_examples())
        assert result.model.training
        assert model.training
        assert str(model) == str(before)
        torch.testing.assert_close(model.state_dict(), before.state_dict(), rtol=0.0, atol=0.0)
        site = attention_sites(model, PARTS.get(name)).attentions[0]
        assert site.heads == HEADS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": HEADS + 1}, "leaves 5 heads of the attention `layers.0`, which has 4 heads"),
        ({"heads": True}, "`heads`: Input should be a valid integer"),
        ({"heads": 0}, "greater than 0"),
        ({"module": "head"}, "the attention `head`, which is none by the task's `attention`"),
        ({"attribute": "training"}, "`attribute`: Extra inputs are not permitted"),
    ],
)
def test_a_record_of_a_stranger_sets_nothing_but_what_the_task_names(change, message):
    record = {"kind": "heads", "module": "layers.0", "heads": 2} | change
    with pytest.raises(CheckpointError, match=message):
        rebuild(Stack(Nested), [record], declared(Nested))


def test_a_record_without_the_tasks_declaration_is_refused():
    with pytest.raises(CheckpointError, match="which is none by the task's `attention`"):
        rebuild(Stack(Packed), [{"kind": "heads", "module": "layers.0", "heads": 2}])


def test_trained_further_a_smaller_attention_learns():
    for name in ("encoder", "declared"):
        model = _fewer(randomized(MODELS[name]().double()), PARTS.get(name)).model.train()
        model(*_examples()[1]).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_on_an_accelerator_the_result_is_the_same_and_stays_there(accelerator):
    model = randomized(Encoder())
    on_cpu, on_gpu = _fewer(model), _fewer(copy.deepcopy(model).to(accelerator))
    assert {parameter.device.type for parameter in on_gpu.model.parameters()} == {accelerator.type}
    for ours, theirs in zip(itertools.chain(on_gpu.model.parameters()), on_cpu.model.parameters(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs)
