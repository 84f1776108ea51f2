"""`low_rank_attention` cuts what it is told to, keeps what it says, and refuses what would not pay."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import compressor
from compressor import AttentionParts
from compressor.errors import MethodError, SurgeryError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.low_rank_attention import LowRankAttention
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.recurrent.factored import LowRankRecurrent
from tests.folders import recipe_of, rehearsed
from tests.methods.conftest import BATCH, CHANNELS, LENGTH, SignTask, make_context, same, weights
from tests.methods.signs import signs
from tests.surgery.attentions import Nested, Packed, Stack, randomized
from tests.surgery.rebuilding import rebuilt_from

WIDTH, HEADS = 12, 3
MODES = ["projections", "heads", "products"]


class Encoder(nn.Module):
    """Two encoder layers of PyTorch behind a Linear, before a GRU."""

    def __init__(self, **options):
        super().__init__()
        self.enter = nn.Linear(CHANNELS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 23, dropout=0.0, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.rnn = nn.GRU(WIDTH, 17, batch_first=True)
        self.head = nn.Linear(17, 2)

    def forward(self, x):
        return self.head(self.rnn(self.encoder(self.enter(x)))[0][:, -1])


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return randomized(Encoder()).double()


class DoubleTask(SignTask):
    """The same in float64, with an input that is far from white."""

    def example(self, batch, length):
        return (torch.ones(batch, length, CHANNELS, dtype=torch.float64),)

    def batches(self, generator):
        scale = torch.tensor([3.0, 1.0, 0.3, 0.1, 0.03], dtype=torch.float64)
        for (x,), target in super().batches(generator):
            yield (1 + x.double() * scale,), target


def cut(model, task=None, state=None, **options):
    context = make_context(model, task or DoubleTask())
    return LowRankAttention(**options).apply(state or State(model), context)


def outputs(model, seed=3):
    x = torch.randn(7, 11, CHANNELS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model.eval()(x)


def counted(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_recipe_word_is_known():
    assert METHODS["low_rank_attention"] is LowRankAttention


@pytest.mark.parametrize("mode", ["heads", "products"])
def test_attention_becomes_narrower_heads_and_parameters_are_counted_exactly(encoder, mode):
    result = cut(encoder, mode=mode, rank=2)
    model = result.state.model
    for layer in model.encoder.layers:
        assert isinstance(layer.self_attn, CompactMultiheadAttention)
        assert (layer.self_attn.head_dim, layer.self_attn.value_head_dim) == (2, 2)
        assert layer.self_attn.scale == pytest.approx((WIDTH // HEADS) ** -0.5)
    lost = sum(change.parameters_before - change.parameters_after for change in result.changes)
    assert lost == counted(encoder) - counted(model) > 0
    # q and k with biases: 2 x 3 heads x 2 lost features x 13; v and o: 3 x 2 x (12 + 1 + 12); in 2 layers
    assert lost == 2 * (2 * 3 * 2 * 13 + 3 * 2 * 25)
    assert [change.name for change in result.changes[:2]] == [
        "encoder.layers.0.self_attn.query_key", "encoder.layers.0.self_attn.value_output",
    ]  # fmt: skip
    assert result.changes[0].note.startswith("3 heads of 2 features instead of 4, ")


def test_each_projection_becomes_two_factors(encoder):
    result = cut(encoder, mode="projections", rank=5)
    attention = result.state.model.encoder.layers[1].self_attn
    for local in ("q_proj", "k_proj", "v_proj", "out_proj"):
        layer = getattr(attention, local)
        assert isinstance(layer, LowRankLinear)
        assert layer.rank == 5
    changes = {change.name: change for change in result.changes}
    change = changes["encoder.layers.1.self_attn.out_proj"]
    assert (change.parameters_before, change.parameters_after) == (144, 120)
    assert change.note.startswith("rank 5 of 12: 12 x 5 and 5 x 12, ")
    assert result.facts["parameters_kept"] == 120 / 144
    assert counted(encoder) - counted(result.state.model) == 8 * 24


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("mode", ["heads", "products"])
def test_heads_that_lose_nothing_give_the_original_with_biases_and_masks(mode, whiten):
    """Keys that use 2 of 4 features, and values too: cutting to 2 features is exact, whatever the biases are."""
    torch.manual_seed(0)
    model = randomized(Encoder()).double()
    with torch.no_grad():
        for layer in model.encoder.layers:
            weight = layer.self_attn.in_proj_weight.view(3, HEADS, 4, WIDTH)
            weight[:, :, 2:] = torch.einsum("ij,khjd->khid", torch.randn(2, 2).double(), weight[:, :, :2])
            if mode == "heads":  # each matrix by itself: the output's columns too
                out = layer.self_attn.out_proj.weight.view(WIDTH, HEADS, 4)
                out[..., 2:] = out[..., :2]
                layer.self_attn.in_proj_bias.view(3, HEADS, 4)[0] = 0  # or queries would use a third feature
    found = cut(model, mode=mode, rank=2, whiten=whiten)
    tolerance = 1e-5 if whiten else 1e-9
    torch.testing.assert_close(outputs(found.state.model), outputs(model), atol=tolerance, rtol=0)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_whitened_factors_err_less_on_the_calibration_data_than_plain_ones(encoder, rank):
    errors = []
    for whiten in (True, False):
        new = cut(encoder, rank=rank, targets=("rnn.weight_ih_l0",), whiten=whiten).state.model.rnn.part(0, 0).input
        seen, old = seen_by_the_gru(encoder), encoder.rnn
        with torch.no_grad():
            lost = seen @ old.weight_ih_l0.T + old.bias_ih_l0 - new(seen)
        errors.append(float(lost.square().sum()))
    assert errors[0] < errors[1]


def seen_by_the_gru(encoder):
    drawn = DoubleTask().batches(torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.cat([encoder.encoder(encoder.enter(x)) for (x,), _ in drawn]).flatten(0, 1)


def test_the_output_error_on_the_calibration_data_is_what_the_report_says(encoder):
    result = cut(encoder, rank=4, targets=("rnn.weight_ih_l0",))
    seen = seen_by_the_gru(encoder)
    centred = (seen - seen.mean(0)) @ encoder.rnn.weight_ih_l0.T
    part = result.state.model.rnn.part(0, 0).input
    with torch.no_grad():
        lost = seen @ encoder.rnn.weight_ih_l0.T + encoder.rnn.bias_ih_l0 - part(seen)
    kept = 1 - float(lost.square().sum() / centred.detach().square().sum())
    assert result.facts["energy_kept_mean"] == pytest.approx(kept, abs=1e-5)


def test_the_rank_by_energy_is_the_smallest_that_keeps_it(encoder):
    result = cut(encoder, mode="projections", energy=0.8, whiten=False)
    kept = [float(change.note.split(", ")[-1].partition("%")[0]) for change in result.changes]
    assert all(part >= 80 for part in kept)
    attention = result.state.model.encoder.layers[0].self_attn
    values = torch.linalg.svdvals(encoder.encoder.layers[0].self_attn.in_proj_weight[:WIDTH]).square()
    if isinstance(attention.q_proj, LowRankLinear):
        assert values[: attention.q_proj.rank - 1].sum() / values.sum() < 0.8


@pytest.mark.parametrize("mode", MODES)
def test_a_budget_over_all_matrices_is_kept_exactly(encoder, mode):
    targets = ("*self_attn*", "*.linear*", "rnn.weight_ih_l0")
    result = cut(encoder, mode=mode, parameters=0.5, targets=targets)
    sites = counted(encoder.encoder) - 2 * (4 * WIDTH) + 51 * 12  # norms have no part in it
    biases = 2 * ((4 * WIDTH if mode == "projections" else WIDTH) + 23 + WIDTH)
    total = sites - biases
    left = total - (counted(encoder) - counted(result.state.model))
    assert left <= total // 2
    assert left > total // 2 - 63  # a rank of the largest matrix
    assert any("better spent elsewhere" in skip.reason for skip in result.skipped) or len(result.changes) > 5


def test_linear_layers_are_cut_only_where_named_and_everything_else_is_listed(encoder):
    result = cut(encoder, rank=3, targets=("*.linear2", "enter"))
    assert [change.name for change in result.changes] == [
        "enter", "encoder.layers.0.linear2", "encoder.layers.1.linear2",
    ]  # fmt: skip
    skipped = {skip.name: skip.reason for skip in result.skipped}
    assert skipped["encoder.layers.0.self_attn.query_key"] == "not named in `targets`"
    default = {skip.name: skip.reason for skip in cut(encoder, rank=3).skipped}
    assert default["rnn.weight_hh_l0"] == "not a part of attention and not named in `targets`"
    assert "head" in default


def test_a_rank_that_saves_nothing_is_skipped_with_the_reason_and_it_is_an_error_where_nothing_is_left(encoder):
    result = cut(encoder, rank=3, targets=("head", "*.linear1"))
    (reason,) = [skip.reason for skip in result.skipped if skip.name == "head"]
    assert reason == (
        "rank 3 is wanted, and two factors of a 2 x 17 matrix have fewer parameters than it up to rank 1 only "
        "(r < m n / (m + n))"
    )
    with pytest.raises(MethodError, match=r"nothing is cut \(.*head: rank 2 is wanted"):
        cut(encoder, rank=2, targets=("head",))
    with pytest.raises(MethodError, match="a head has 4 features"):
        cut(encoder, rank=4)


def test_a_recurrent_matrix_that_would_run_slower_is_refused_with_the_numbers_unless_size_is_enough(encoder):
    with pytest.raises(MethodError) as caught:
        cut(encoder, rank=4, targets=("rnn.weight_hh_l0",))
    assert "a GRU of 17 units runs slower with two factors for its recurrent matrix, whatever the rank" in str(
        caught.value
    )
    assert "it pays from 384 units on" in str(caught.value)
    result = cut(encoder, rank=4, targets=("rnn.weight_hh_l0",), recurrent="smaller")
    assert isinstance(result.state.model.rnn, LowRankRecurrent)
    assert result.state.model.rnn.part(0, 0).ranks == (None, 4)
    assert "exported as an ONNX Scan" in result.notes[-1]


def test_in_a_graph_of_one_step_smaller_layers_pay():
    model = nn.Sequential(nn.GRU(CHANNELS, 256), Last()).double()
    task = DoubleTask()
    with pytest.raises(MethodError, match="a GRU of 256 units runs slower"):
        cut(model, task, rank=64, targets=("0.weight_hh_l0",), whiten=False)
    task.length = 1
    result = cut(model, task, rank=64, targets=("0.weight_hh_l0",), whiten=False)
    assert result.state.model[0].part(0, 0).ranks == (None, 64)


def test_a_large_layer_is_cut_up_to_the_rank_that_pays():
    model = nn.Sequential(nn.LSTM(CHANNELS, 384), Last()).double()
    with pytest.raises(
        MethodError, match="rank 193 is wanted, and an LSTM of 384 units was measured to run faster up to"
    ):
        cut(model, rank=193, targets=("0.weight_hh_l0",), whiten=False)
    result = cut(model, parameters=0.99, targets=("0.weight_hh_l0",), whiten=False)
    assert result.state.model[0].part(0, 0).ranks == (None, 192)  # the budget alone would give 304


class Last(nn.Module):
    def forward(self, result):
        return result[0][:, -1]


def test_attention_that_the_task_names_is_cut_projection_by_projection():
    for kind in (Nested, Packed):
        model, task = randomized(Stack(kind)).double(), StackTask()
        task.attention = {"re:layers\\.[0-9]+": kind.PARTS}
        result = LowRankAttention(mode="projections", rank=2, whiten=True).apply(
            State(model), make_context(model, task)
        )
        cut_layers = [name for name, module in result.state.model.named_modules() if isinstance(module, LowRankLinear)]
        assert len(cut_layers) == (8 if kind is Nested else 4)
        assert "layers.0" in cut_layers[0]
        reason = "its `widths` are numbers" if kind is Nested else "one layer makes its queries, keys and values"
        with pytest.raises(MethodError, match=reason):
            LowRankAttention(mode="products", rank=2).check_task(model, task)


class Written(nn.Module):
    """Attention that takes its sizes from tensors, and the scale from there or as a number."""

    def __init__(self, scale=None, width=None):
        super().__init__()
        self.heads, self.scale, self.width = HEADS, scale, width
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            part(x).unflatten(-1, (self.heads, self.width or -1)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        scores = q @ k.mT * (self.scale or q.shape[-1] ** -0.5)
        return x + self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def written(**options):
    model = randomized(nn.Sequential(nn.Linear(CHANNELS, WIDTH), Written(**options), nn.Linear(WIDTH, 2))).double()
    task = DoubleTask()
    task.attention = {"1": AttentionParts(query="q", key="k", value="v", output="o", heads="heads")}
    return model, task


@pytest.mark.parametrize("mode", ["heads", "products"])
@pytest.mark.parametrize("scale", [None, 0.37])
def test_heads_of_attention_that_the_task_names_become_narrower_whatever_its_scale_is_made_of(scale, mode):
    model, task = written(scale=scale)
    twin = copy.deepcopy(model)
    twin[1] = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()  # the same numbers in PyTorch's layer
    with torch.no_grad():
        factor = 1.0 if scale is None else scale * (WIDTH // HEADS) ** 0.5
        parts = (model[1].q, model[1].k, model[1].v)
        twin[1].in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        twin[1].in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        twin[1].in_proj_weight[:WIDTH] *= factor
        twin[1].in_proj_bias[:WIDTH] *= factor
        twin[1].out_proj.weight.copy_(model[1].o.weight)
        twin[1].out_proj.bias.copy_(model[1].o.bias)
    result = cut(model, task, mode=mode, rank=2, whiten=False)
    narrow = result.state.model[1]
    assert (narrow.q.out_features, narrow.k.out_features, narrow.o.in_features) == (6, 6, 6)
    x = torch.randn(2, 7, CHANNELS, dtype=torch.float64)
    with torch.no_grad():
        entered = twin[0](x)
        found = narrow(entered)
        same_cut = cut(Wrapped(twin), mode=mode, rank=2, whiten=False).state.model.attention
        expected = entered + same_cut(entered, entered, entered)[0]
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    lost = sum(change.parameters_before - change.parameters_after for change in result.changes)
    assert lost == counted(model) - counted(result.state.model)
    rebuilt = rebuilt_from(result.state, written(scale=scale)[0])
    assert torch.equal(rebuilt(x), result.state.model(x))


class Wrapped(nn.Module):
    def __init__(self, twin):
        super().__init__()
        self.enter, self.attention, self.head = twin

    def forward(self, x):
        entered = self.enter(x)
        return self.head(entered + self.attention(entered, entered, entered)[0])


def test_attention_whose_code_fixes_the_width_of_its_heads_is_refused_with_the_line():
    model, task = written(width=WIDTH // HEADS)
    with pytest.raises(SurgeryError) as caught:
        cut(model, task, rank=2)
    assert "heads of fewer features do not fit the code of the attention that the task names" in caught.value.message
    assert "test_low_rank_attention.py" in caught.value.message
    assert "mode: projections" in caught.value.hint
    assert model[1].q.out_features == WIDTH


class StackTask(DoubleTask):
    def example(self, batch, length):
        return (torch.ones(batch, length, 12, dtype=torch.float64),)

    def batches(self, generator):
        for _ in range(2):
            yield (torch.randn(BATCH, LENGTH, 12, generator=generator).double(),), torch.zeros(BATCH).long()


@pytest.mark.parametrize("mode", MODES)
def test_the_record_gives_the_users_own_class_the_same_structure(encoder, mode):
    after = cut(encoder, mode=mode, rank=2, targets=("*self_attn*", "*.linear1", "rnn*"), recurrent="smaller").state
    rebuilt = rebuilt_from(after, Encoder().double()).eval()
    assert torch.equal(outputs(rebuilt), outputs(after.model))


def test_the_model_that_was_given_is_left_as_it_was_and_the_step_repeats_itself(encoder):
    before = weights(encoder)
    first, second = (cut(encoder, mode="products", parameters=0.6).state.model for _ in range(2))
    assert same(weights(encoder), before)
    assert same(weights(first), weights(second))


def test_masks_of_an_earlier_step_are_dropped_where_a_matrix_is_cut_and_kept_elsewhere(encoder):
    context = make_context(encoder, DoubleTask())
    sparse = Magnitude(prune="weights", sparsity=0.5, targets=("*.linear1", "*.in_proj_weight", "head"), scope="layer")
    state = sparse.apply(State(encoder), context).state
    result = cut(encoder, state=state, rank=2)
    assert set(result.state.masks) == {
        "encoder.layers.0.linear1.weight", "encoder.layers.1.linear1.weight", "head.weight",
    }  # fmt: skip
    assert "Zeros of an earlier step are not held any more in" in result.notes[0]


def test_a_second_step_leaves_factors_alone_and_says_so(encoder):
    once = cut(encoder, mode="projections", rank=3).state
    with pytest.raises(MethodError, match="is in low rank already"):
        cut(once.model, state=once, mode="products", rank=2)


def test_factors_are_trained_by_retrain(encoder):
    model = encoder.float()
    state = cut(
        model, SignTask(), mode="projections", rank=3, targets=("*self_attn*", "rnn*"), recurrent="smaller"
    ).state
    after = Retrain(epochs=1, lr=0.01, distill=True).apply(state, make_context(model, SignTask())).state
    old = dict(state.model.named_parameters())
    for name, parameter in after.model.named_parameters():
        if "down" in name or ".up." in name:
            assert not torch.equal(parameter, old[name]), name


def test_units_in_front_of_a_factored_layer_can_go_and_the_features_between_factors_too():
    def build():
        return nn.Sequential(
            nn.Linear(CHANNELS, 13), nn.ReLU(), nn.Linear(13, 11), nn.ReLU(), nn.Linear(11, 2)
        ).double()

    state = cut(build(), rank=3, targets=("2",)).state
    step = Magnitude(prune="units", count=2, targets=("0", "2.down"), compensate=False)
    after = step.apply(state, make_context(state.model, DoubleTask())).state
    assert (after.model[2].in_features, after.model[2].rank, after.model[2].out_features) == (11, 1, 11)
    rebuilt = rebuilt_from(after, build())
    assert torch.equal(outputs(rebuilt), outputs(after.model))


def test_of_a_factored_recurrent_layer_ranks_can_go_and_hidden_units_are_refused(encoder):
    state = cut(encoder, rank=4, targets=("rnn*",), recurrent="smaller").state
    context = make_context(encoder, DoubleTask())
    options = {"prune": "units", "count": 1, "compensate": False}
    with pytest.raises(MethodError, match="no recurrent layer"):
        Magnitude(**options).apply(state, context)
    with pytest.raises(SurgeryError, match=r"units of `rnn.layers.0.hidden.up` cannot be removed"):
        Magnitude(**options, targets=("rnn.layers.0.hidden.up",)).apply(state, context)
    in_front = Magnitude(**options, targets=("enter",)).apply(state, context).state
    assert in_front.model.enter.out_features == encoder.enter.out_features - 1
    fewer = Magnitude(**options, targets=("*.hidden.down",)).apply(state, context).state
    assert fewer.model.rnn.part(0, 0).ranks == (4, 3)
    rebuilt = rebuilt_from(fewer, Encoder().double())
    assert torch.equal(outputs(rebuilt), outputs(fewer.model))


class Odd(nn.Module):
    """Linear layers that cannot be replaced, one reason each."""

    def __init__(self):
        super().__init__()
        self.tied, self.again = nn.Linear(CHANNELS, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.again.weight = self.tied.weight
        self.own = Own(CHANNELS, CHANNELS)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(CHANNELS, CHANNELS))
        self.projected = nn.LSTM(CHANNELS, 7, proj_size=3, batch_first=True)

    def forward(self, x):
        return self.projected(self.normed(self.own(self.again(self.tied(x)))))[0][:, -1]


class Own(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def test_what_cannot_be_replaced_is_refused_with_a_reason_each():
    with pytest.raises(MethodError) as caught:
        LowRankAttention(rank=1, targets=("*",)).check(Odd())
    text = caught.value.message
    assert "tied: its weight belongs to other modules too" in text
    assert "own: a `Own` has a `forward` of its own" in text
    assert "normed: " in text
    assert "projected.weight_ih_l0: an LSTM with proj_size=3" in text
    with pytest.raises(MethodError, match="it is the model itself"):
        LowRankAttention(rank=1, targets=("*",)).check(nn.MultiheadAttention(12, 3))


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(CHANNELS, 17, batch_first=True)

    def forward(self, x):
        return self.rnn(x)[0][:, -1] @ self.rnn.weight_hh_l0.T


def test_a_model_that_reads_the_weights_of_a_layer_is_refused_in_the_step():
    model = Reading().double()
    with pytest.raises(MethodError) as caught:
        cut(model, rank=2, targets=("rnn*",), recurrent="smaller")
    assert "the chosen matrices cannot be factored: the model then raises AttributeError" in caught.value.message
    assert type(model.rnn) is nn.GRU


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Sequential(nn.Linear(3, 5)), {}, "the model has no multi-head attention whose matrices could be cut\nhint: "
         "name Linear or recurrent matrices in `targets`"),
        (nn.Sequential(nn.Linear(3, 5)), {"targets": ("1",)}, "`1` matches nothing in the model"),
        (nn.Sequential(nn.Linear(3, 5), nn.ReLU()), {"targets": ("1",)}, "which cannot be factored"),
        (Encoder(), {"ignore": ("*",)}, "nothing is left"),
    ],
)  # fmt: skip
def test_targets_that_name_nothing_are_refused_before_any_work(model, options, message):
    with pytest.raises(MethodError) as caught:
        LowRankAttention(rank=1, **options).check(model)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of `energy`, `rank` and `parameters`"),
        ({"rank": 1, "energy": 0.5}, "give one of"),
        ({"rank": 1, "whiten": False, "compare": True}, "`compare` has no effect without `whiten`"),
        ({"energy": 1.0}, "less than 1"),
        ({"rank": 1, "targets": ("re:(",)}, "is not a regular expression"),
        ({"rank": 1, "mode": "both"}, "'projections', 'heads' or 'products'"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(options, message):
    with pytest.raises(ValidationError) as caught:
        LowRankAttention(**options)
    assert message in str(caught.value)


def test_a_budget_below_rank_1_is_refused(encoder):
    with pytest.raises(MethodError, match=r"`parameters: 0.01`: .* fewer than the .* of rank 1 everywhere"):
        cut(encoder, mode="projections", parameters=0.01)


def test_layers_that_the_batches_never_reach_are_skipped(encoder):
    class Half(Encoder):
        def forward(self, x):
            return self.head(self.rnn(self.encoder.layers[0](self.enter(x)))[0][:, -1])

    model = randomized(Half()).double()
    result = cut(model, rank=2)
    assert "encoder.layers.1.self_attn.query_key" not in [change.name for change in result.changes]
    reasons = {skip.name: skip.reason for skip in result.skipped}
    assert reasons["encoder.layers.1.self_attn.query_key"] == "the model did not call it on the calibration batches"
    assert isinstance(result.state.model.encoder.layers[1].self_attn, nn.MultiheadAttention)


NET = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter = nn.Linear(5, 12)
            layer = nn.TransformerEncoderLayer(12, 3, 23, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.rnn = nn.LSTM(12, 17, batch_first=True, bidirectional=True)
            self.head = nn.Linear(34, 2)

        def forward(self, x):
            return self.head(self.rnn(self.encoder(self.enter(x)))[0][:, -1])
"""
RECIPE = recipe_of(
    "{method: low_rank_attention, mode: products, parameters: 0.5, compare: true}",
    "{method: low_rank_attention, rank: 3, targets: ['*.linear1', 'rnn*'], recurrent: smaller}",
    "{method: retrain, epochs: 1, lr: 1e-2, distill: true}",
    seed=3,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return rehearsed(tmp_path_factory.mktemp("low_rank"), signs(NET), RECIPE)


def test_a_run_exports_factors_that_agree_and_counts_their_macs(done):
    out, task, report = done
    loaded = compressor.load(out, task)
    assert isinstance(loaded.rnn, LowRankRecurrent)
    (compressed,) = report.compressed
    assert compressed.artifact.parity.passed
    assert compressed.artifact.operators["Scan"] == 2
    assert compressed.macs < report.original.macs
    assert compressed.parameters < report.original.parameters


def test_the_report_has_ranks_energies_and_plain_factors_beside_the_whitened_ones(done):
    out, _, report = done
    first, second, _ = report.steps
    (plain,) = first.beside
    assert (plain.name, plain.note, plain.parameters) == ("plain", "", first.parameters)
    assert first.facts["parameters_kept"] <= 0.5
    assert 0 < first.facts["energy_kept_lowest"] <= first.facts["energy_kept_mean"] <= 1
    assert second.facts["rank_mean"] == 3
    text = (out / "report.md").read_text()
    assert "output energy on the calibration batches kept" in text


def test_on_an_accelerator_the_same_factors_are_found(accelerator):
    model = randomized(Encoder())
    found = [cut(model, SignTask(), mode="products", rank=2).state.model]
    context = make_context(model.to(accelerator), SignTask(), device=accelerator)
    found.append(LowRankAttention(mode="products", rank=2).apply(State(model), context).state.model)
    assert all(parameter.device.type == accelerator.type for parameter in found[1].parameters())
    x = torch.randn(3, 7, CHANNELS)
    with torch.no_grad():
        torch.testing.assert_close(found[1](x.to(accelerator)).cpu(), found[0].cpu()(x), atol=1e-4, rtol=0)
