"""Causal attention that its author wrote becomes an Aaren inside its own code; what else it might be is found out."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, MethodError, TaskError
from compressor.methods.aaren import Aaren
from compressor.methods.base import State
from compressor.methods.retrain import Retrain
from compressor.nn.attention import prefix
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.structure import apply_record
from compressor.probing.conversions import between
from compressor.surgery.attention.declared_sites import check_declared
from tests.methods.conftest import SignTask, make_context, same, weights
from tests.surgery.attentions import HEADS, WIDTH, Nested, Packed, Stack, declared, later, randomized

LENGTH, BATCH = 7, 19
QUERIES = {Nested: "self.query", Packed: "qkv"}


class Own(nn.Module):
    """Attention whose weights a test decides on; scores (B, h, T, T) go through `scored` before the softmax."""

    PARTS = Nested.PARTS.__class__(query="q", key="k", value="v", output="o", heads="heads")

    def __init__(self, scored, *, time_first=False, after=lambda context: context):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.heads, self.scored, self.time_first, self.after = HEADS, scored, time_first, after

    def forward(self, x, memory=None):
        x = x.transpose(0, 1) if self.time_first else x
        memory = x if memory is None else memory
        parts = (self.q(x), self.k(memory), self.v(memory))
        parts = [part.transpose(0, 1) if self.time_first else part for part in parts]
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        context = (self.scored(q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
        context = self.after(context.transpose(0, 1) if self.time_first else context)
        found = self.o(context)
        return found.transpose(0, 1) if self.time_first else found


def causal(scores):
    return scores.masked_fill(later(scores.size(-1)), float("-inf"))


class Task(SignTask):
    inputs = {"x": {0: "batch", 1: "time"}}
    length = LENGTH

    def __init__(self, parts, padded=False):
        super().__init__()
        self.attention, self.padded = parts, padded

    def example(self, batch, length):
        return self._given(torch.randn(batch, length, WIDTH))

    def batches(self, generator):
        for _ in range(12):
            x = torch.randn(BATCH, LENGTH, WIDTH, generator=generator).exp()  # a long tail: the mean is no good summary
            yield self._given(x), (x[:, -1, 0] > 0).long()

    def _given(self, x):
        real = torch.ones(x.shape[:2], dtype=torch.bool)
        real[0, 3:] = False
        return (x, real) if self.padded else (x,)

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs[:, -1], target)

    def evaluate(self, forward):
        inputs, target = next(iter(self.batches(torch.Generator().manual_seed(1))))
        return (forward(*inputs)[:, -1].argmax(-1) == target).float()


def convert(model, parts, padded=False, masks=None, **options):
    context = make_context(model.eval(), Task(parts, padded))
    return Aaren(**({"query": "mean", "distill_steps": 0} | options)).apply(State(model, masks or {}), context)


def stack(kind, **options):
    return randomized(Stack(kind, causal=True, **options))


@pytest.mark.parametrize("kind", [Nested, Packed])
@pytest.mark.parametrize("bias", [True, False])
def test_the_query_is_learned_and_keys_values_output_and_all_around_them_are_carried_over(kind, bias):
    model = stack(kind, bias=bias)
    before = weights(model)
    result = convert(model, declared(kind))
    new = result.state.model
    assert same(weights(model), before)
    for index in range(2):
        assert isinstance(new.get_submodule(f"layers.{index}.{QUERIES[kind]}"), LearnedQuery)
        assert type(new.layers[index]) is kind
    kept = {name: value for name, value in weights(new).items() if not name.endswith(f"{QUERIES[kind]}.query")}
    assert same(kept, before)
    assert [(change.name, change.parameters_after - change.parameters_before) for change in result.changes] == [
        ("layers.0", WIDTH), ("layers.1", WIDTH),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Nested, Packed])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_it_gives_what_the_recurrence_gives_with_gradients(kind, length):
    model = convert(stack(kind), declared(kind)).state.model.layers[0]
    asked = model.get_submodule(QUERIES[kind])
    x = torch.randn(3, length, WIDTH, requires_grad=True)
    seen = []
    model.get_submodule(kind.PARTS.output).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(x)
    packed = kind is Packed
    q = asked(x)[0, 0, : HEADS * 3].view(HEADS, 3)
    k, v = asked(x).split(HEADS * 3, -1)[1:] if packed else (model.self.key(x), model.self.value(x))
    scores = torch.einsum("hd,bthd->bht", q, k.unflatten(-1, (HEADS, 3))) * 3**-0.5
    expected = prefix.naive(scores, v.unflatten(-1, (HEADS, -1)).transpose(1, 2))
    expected = expected.transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(expected)
    sources = (x, asked.query)
    for found, wanted in zip(
        torch.autograd.grad((seen[0] * weight).sum(), sources, retain_graph=True),
        torch.autograd.grad((expected * weight).sum(), sources), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_mean_query_is_the_mean_of_the_queries_at_positions_that_count():
    model = stack(Packed)
    asked = convert(model, declared(Packed), padded=True).state.model.layers[0].qkv
    batches = list(Task({}, padded=True).batches(torch.Generator().manual_seed(0)))
    used = [given for index, (given, _) in enumerate(batches) if index % 4 != 3]  # every fourth is held out
    inputs = torch.cat([x[real] for x, real in used])
    with torch.no_grad():
        torch.testing.assert_close(asked.query, inputs.mean(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", [Nested, Packed])
def test_attention_whose_queries_are_all_the_same_is_met_exactly(kind, padded):
    model = stack(kind)
    with torch.no_grad():
        for layer in model.layers:
            layer.get_submodule(QUERIES[kind]).weight[: HEADS * 3] = 0.0  # only the bias is left of the queries
    result = convert(model, declared(kind), padded)
    assert result.facts["layers.1: error with the mean query"] < 1e-10
    x = torch.randn(3, 11, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(result.state.model(x), model(x), atol=1e-5, rtol=1e-5)


def test_fitting_the_query_and_then_all_weights_comes_nearer_each_time():
    facts = convert(stack(Nested), declared(Nested), True, query="fitted", distill_steps=60, distill_lr=1e-2).facts
    mean, fitted, distilled = (value for name, value in facts.items() if name.startswith("layers.0"))
    assert 1.0 > mean > 1.03 * fitted > 1.03**2 * distilled > 0.0


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (Own(lambda scores: scores), "it shows positions that come later"),
        (Own(lambda s: causal(s).masked_fill(torch.ones(s.shape[-2:]).bool().tril(-3), float("-inf"))),
         "it hides some earlier positions"),
        (Own(lambda s: causal(s) - (torch.arange(s.size(-1))[:, None] - torch.arange(s.size(-1))).abs() * 0.1),
         "numbers are added to scores"),
        (Own(lambda s: causal(5.0 * torch.tanh(s))), "normalised or capped"),
        (Own(causal, after=lambda context: context.flip(-1)), "one head behind the other"),
        (Own(causal, after=lambda context: context.tanh()), "its values weighted by a softmax"),
        (Own(causal), None),
    ],
    ids=["all positions", "window", "slopes", "capped", "order", "no softmax", "harmless"],
)  # fmt: skip
def test_what_is_no_plain_causal_softmax_is_refused_with_the_reason(attention, reason):
    model = nn.Sequential(randomized(attention))
    if reason is None:
        assert convert(model, {"0": Own.PARTS}).changes
        return
    for targets in (None, ["0"]):
        with pytest.raises(MethodError, match=reason) as caught:
            convert(model, {"0": Own.PARTS}, targets=targets)
        assert "give the layer a causal mask" in caught.value.hint


def test_a_mask_that_depends_on_later_inputs_is_found_out():
    def peeking(scores):
        low = 0.3 * (scores[:, :, :1, -1:].mean(1, keepdim=True) > 1e-3)
        return causal(scores) * (1.0 - low) if scores.size(-1) > 2 else causal(scores)

    class Late(Own):
        def forward(self, x):
            return super().forward(x) + 0.0

    model = nn.Sequential(randomized(Late(peeking)))
    with pytest.raises(MethodError, match=r"change with later inputs|weights are not the softmax"):
        convert(model, {"0": Own.PARTS})


def test_cross_attention_is_refused_and_a_layer_that_is_not_called():
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.unused = Own(causal), Own(causal)

        def forward(self, x):
            return self.own(x, x.roll(1, 0))

    with pytest.raises(MethodError) as caught:
        convert(randomized(Cross()), {"*": Own.PARTS})
    assert "`own`: it attends from one sequence to another (cross-attention)" in caught.value.message
    assert "`unused`: it is never called as a module" in caught.value.message


def test_heads_that_share_keys_are_left_alone_by_the_task_check():
    own = Own(causal)
    own.k, own.v = nn.Linear(WIDTH, 8), nn.Linear(WIDTH, 8)
    with pytest.raises(TaskError, match="heads that share keys are not handled"):
        check_declared(nn.Sequential(own), {"0": Own.PARTS})


@pytest.mark.parametrize("scale", [1.0, 0.37])
@pytest.mark.parametrize("time_first", [False, True])
def test_any_scale_and_order_of_axes_is_found(scale, time_first):
    model = nn.Sequential(randomized(Own(lambda s: causal(s * scale), time_first=time_first)))
    asked = convert(model, {"0": Own.PARTS}).state.model[0].q
    assert asked.record()["scale"] == pytest.approx(scale, rel=1e-4)
    assert asked.batch_first is not time_first


def test_attention_with_code_of_its_own_gets_no_memory_cache():
    with pytest.raises(MethodError, match="no place for a memory cache"):
        convert(stack(Packed), declared(Packed), memory_cache=2)


def test_masks_of_pruned_weights_hold_and_frozen_weights_stay():
    model = stack(Packed)
    mask = torch.rand(3 * HEADS * 3, WIDTH) > 0.5
    with torch.no_grad():
        model.layers[0].qkv.weight[~mask] = 0.0
    model.layers[1].proj.requires_grad_(False)
    result = convert(model, declared(Packed), masks={"layers.0.qkv.weight": mask}, distill_steps=10)
    new = result.state.model
    assert not new.layers[0].qkv.weight[~mask].any()
    assert set(result.state.masks) == {"layers.0.qkv.weight"}
    assert new.layers[1].proj.weight.equal(model.layers[1].proj.weight)
    assert not new.layers[0].proj.weight.equal(model.layers[0].proj.weight)


def test_the_structure_is_rebuilt_from_the_record_and_retrained():
    model = stack(Nested)
    result = convert(model, declared(Nested))
    rebuilt = stack(Nested)
    records = json.loads(json.dumps(result.state.structure))
    for record in records:
        apply_record(rebuilt, record)
    rebuilt.load_state_dict(result.state.model.state_dict())
    x = torch.randn(3, LENGTH, WIDTH)
    assert torch.equal(rebuilt(x), result.state.model(x))
    trained = Retrain(epochs=1, lr=1e-2, distill=True).apply(result.state, make_context(model, Task(declared(Nested))))
    assert trained.changes
    with pytest.raises(CheckpointError, match="`output`"):
        apply_record(stack(Nested), records[0] | {"record": records[0]["record"] | {"output": "a/../b"}})


def test_the_converted_stack_is_probed_as_aarens_of_as_many_heads():
    model = stack(Packed)
    (conversion,), skipped = between(model, convert(model, declared(Packed)).state.model)
    assert (conversion.modules, skipped) == (("layers.0.qkv", "layers.1.qkv"), ())
    assert (conversion.original.mixers, conversion.converted.mixers) == (("attention",) * 2, ("aaren",) * 2)
    assert conversion.converted.heads == HEADS


@pytest.mark.parametrize("scale", [1.0, 0.37, 2.5])
def test_the_scale_of_the_attention_is_that_of_the_converted_one(scale):
    model = nn.Sequential(randomized(Own(lambda scores: causal(scores * scale))))
    with torch.no_grad():
        model[0].q.weight.zero_()  # all queries are the same, so the mean query gives what they gave
    result = convert(model, {"0": Own.PARTS})
    x = torch.randn(3, 11, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(result.state.model(x), model(x), atol=1e-5, rtol=1e-5)
