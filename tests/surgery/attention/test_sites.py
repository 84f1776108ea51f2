"""One view of every attention: where each head's weights lie, and a clear word where a declaration is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import AttentionParts
from compressor.errors import TaskError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.surgery.attention.declared_sites import check_declared, set_heads
from compressor.surgery.attention.sites import attention_sites
from tests.surgery.attentions import HEAD, HEADS, VALUE, WIDTH, Nested, Packed, Stack, declared, randomized, written_out
from tests.tolerances import SAME_FLOAT64


def _torch(**options):
    return randomized(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options).double())


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 7, "vdim": 5}], ids=str)
@pytest.mark.parametrize("compact", [False, True])
def test_the_heads_of_pytorch_and_of_this_package_are_where_the_site_says(options, compact):
    module = _torch(**options)
    inputs = [torch.randn(2, 5, size, dtype=torch.float64) for size in (WIDTH, module.kdim, module.vdim)]
    expected = module(*inputs)[0]
    module = CompactMultiheadAttention.from_module(module) if compact else module
    (site,) = attention_sites(module).attentions
    assert (site.kind, site.heads, site.reason) == ("compact" if compact else "multihead", HEADS, None)
    torch.testing.assert_close(written_out(site, module, *inputs), expected, **SAME_FLOAT64)


@pytest.mark.parametrize("bias", [True, False])
def test_the_heads_of_a_declared_packed_layer_are_where_the_site_says(bias):
    model = randomized(Stack(Packed, bias=bias).double())
    x = torch.randn(2, 5, WIDTH, dtype=torch.float64)
    sites = attention_sites(model, declared(Packed)).attentions
    assert [site.name for site in sites] == ["layers.0", "layers.1"]
    torch.testing.assert_close(x + written_out(sites[0], model, x, x, x), model.layers[0](x), **SAME_FLOAT64)


def test_a_declared_attention_may_have_values_of_another_width():
    (site, _) = attention_sites(Stack(Nested), declared(Nested)).attentions
    assert (site.kind, site.head_width, site.value_head_width) == ("declared", HEAD, VALUE)
    assert site.output.weight == "layers.0.output.dense.weight"


def test_what_stays_of_the_heads_is_told_for_each_parameter():
    model = Stack(Packed)
    (site, _) = attention_sites(model, declared(Packed)).attentions
    kept = site.kept(model, torch.tensor([True, False, True, True]))
    gone = {key: (~mask).nonzero().flatten().tolist() for key, mask in kept.items()}
    rows = [3, 4, 5, 15, 16, 17, 27, 28, 29]
    assert gone == {
        ("layers.0.qkv.weight", 0): rows,
        ("layers.0.qkv.bias", 0): rows,
        ("layers.0.proj.weight", 1): [3, 4, 5],
    }


def test_all_attributes_that_hold_the_heads_are_set():
    model = Stack(Packed)
    (site, _) = attention_sites(model, declared(Packed)).attentions
    set_heads(model, site, 3)
    assert (model.layers[0].h, model.layers[0].groups, model.layers[0].inner) == (3, 3, 9)
    assert model.layers[1].h == HEADS


def test_weights_that_belong_to_two_attentions_cannot_be_changed():
    model = Stack(Nested)
    model.layers[1].self.key = model.layers[0].self.key
    reasons = [site.reason for site in attention_sites(model, declared(Nested)).attentions]
    assert reasons[0] == "its weight `layers.0.self.key.weight` belongs to `layers.1` as well"
    assert reasons[1] is not None


def test_weights_that_belong_to_another_layer_too_cannot_be_changed():
    model = nn.Sequential(_torch(), nn.Linear(WIDTH, WIDTH))
    model[1].weight = model[0].out_proj.weight
    (site,) = attention_sites(model).attentions
    assert site.reason == "its weight `0.out_proj.weight` belongs to `0.out_proj`, `1` as well"


@pytest.mark.parametrize("option", ["add_bias_kv", "add_zero_attn"])
def test_an_attention_with_added_keys_says_so(option):
    (site,) = attention_sites(nn.MultiheadAttention(WIDTH, HEADS, **{option: True})).attentions
    assert site.reason == f"it has {option}=True"


def test_a_class_with_a_forward_of_its_own_and_computed_weights_say_so():
    class Own(nn.MultiheadAttention):
        def forward(self, *args, **kwargs):
            output, weights = super().forward(*args, **kwargs)
            return 2 * output, weights

    computed = nn.MultiheadAttention(WIDTH, HEADS)
    nn.utils.parametrizations.weight_norm(computed.out_proj)
    reasons = [site.reason for site in attention_sites(nn.ModuleList([Own(WIDTH, HEADS), computed])).attentions]
    assert reasons[0] == "it is a `Own` with a `forward` of its own"
    assert reasons[1] == "its weight `1.out_proj.weight` is computed from other parameters"


def test_an_attention_of_this_package_whose_layers_were_replaced_is_skipped_with_the_reason():
    compact = CompactMultiheadAttention.from_module(_torch())
    compact.k_proj = nn.Sequential(nn.Linear(WIDTH, 2), nn.Linear(2, WIDTH))
    sites = attention_sites(compact)
    assert (sites.attentions, sites.skipped[0].reason) == ((), "its `k_proj` is a `Sequential`, not an nn.Linear")


def test_a_module_used_twice_is_one_site_and_any_of_its_names_is_known():
    model = Stack(Nested)
    model.layers[1] = model.layers[0]
    sites = attention_sites(model, {"layers.1": Nested.PARTS}).attentions
    assert [site.name for site in sites] == ["layers.0"]


def test_what_an_earlier_step_changed_is_skipped_with_the_reason():
    model = Stack(Nested)
    model.layers[0].self.value = nn.Sequential(nn.Linear(WIDTH, 2), nn.Linear(2, HEADS * VALUE))
    sites = attention_sites(model, declared(Nested))
    assert [site.name for site in sites.attentions] == ["layers.1"]
    assert "is a `Sequential`, not an nn.Linear" in sites.skipped[0].reason


PARTS = {"query": "self.query", "key": "self.key", "value": "self.value", "output": "output.dense",
         "heads": "self.num_attention_heads"}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": "self.querry"}, r"`layers\.0\.self`, a `Inner`, has no `querry` \(`query` is `self\.querry`\)"),
        ({"output": "output.norm"}, "the `output` of `layers.0`, is a `LayerNorm`, not an nn.Linear"),
        ({"output": "self.query", "query": "output.dense"}, "`output` of `layers.0` takes 12 features in, and `value`"),
        ({"heads": "self.attention_head_size"}, "`value` of `layers.0` has 20 outputs, which 3 heads do not divide"),
        ({"heads": "self.missing"}, "has no `missing`"),
        ({"heads": "self.query"}, r"`self\.query` of `layers\.0` is Linear.*not an int"),
        (
            {"widths": ("self.attention_head_size",)},
            "`self.attention_head_size` of `layers.0` is 3, and 4 heads are 12",
        ),
        ({"heads": ("self.num_attention_heads", "self.all_head_size")}, "do not agree"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_wrong(changed, message):
    with pytest.raises(TaskError, match=message):
        check_declared(Stack(Nested), {"layers.[01]": AttentionParts(**(PARTS | changed))})


def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest_name():
    with pytest.raises(TaskError, match=r"no module of the model fits `layer\.0`") as caught:
        check_declared(Stack(Nested), {"layer.0": Nested.PARTS})
    assert caught.value.hint == "did you mean `layers.0`?"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": ""}, "`key` of AttentionParts is ''"),
        ({"heads": ()}, "needs `heads` or `head_width`"),
        ({"head_width": "d"}, "needs `heads` or `head_width`"),
        ({"key": "self.query"}, "names one layer twice"),
        ({"output": "self.value"}, "names one layer twice"),
        ({"widths": "a b"}, "`widths` of AttentionParts is 'a b'"),
    ],
)
def test_paths_that_cannot_be_meant_are_refused_at_once(changed, message):
    with pytest.raises(TaskError, match=message):
        AttentionParts(**(PARTS | changed))


def test_heads_that_share_keys_and_numbers_that_others_hold_are_refused():
    model = Stack(Nested)
    model.layers[0].self.key = nn.Linear(WIDTH, 2 * HEAD * HEADS)
    with pytest.raises(TaskError, match=r"`key` of `layers\.0` has 24 outputs and `query` 12: heads that share keys"):
        check_declared(model, declared(Nested))

    class Settings:
        heads = HEADS

    model = Stack(Packed)
    model.layers[0].settings = Settings()
    parts = AttentionParts(query="qkv", key="qkv", value="qkv", output="proj", heads="settings.heads")
    with pytest.raises(TaskError, match=r"`settings` of `layers\.0` is a `Settings`, not a module"):
        check_declared(model, {"layers.0": parts})
