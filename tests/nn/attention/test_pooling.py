"""A pooling in another one's place reads that one's arguments, and is fitted to what that one gave."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, MethodError
from compressor.nn.attention.lama import LamaAttention
from compressor.nn.attention.pooling import MeanPooling, PoolingReplacement, RowMix
from compressor.nn.attention.pooling_call import PoolingCall
from compressor.nn.structure import LAYERS, apply_record, replace_record
from compressor.training.pooling_fitting import Sample, explained, fit, solve_readout
from tests.tolerances import SAME_FLOAT64

WIDTH, HEADS, SUMS, BATCH, TIME = 5, 3, 2, 7, 11
LENGTHS = torch.tensor([11, 1, 7, 3, 10, 2, 5])
REAL = torch.arange(TIME) < LENGTHS[:, None]
SIZES = {"mix": SUMS * WIDTH, "linear": 13, "rows": HEADS * WIDTH}


def batch(seed=1, size=BATCH):
    return torch.randn(size, TIME, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def replacement(readout="mix", call=None, pool=None, seed=0):
    torch.manual_seed(seed)
    call = call or PoolingCall(("states", "mask"), "states", mask="mask", mask_kind="real")
    pool = pool or LamaAttention(WIDTH, HEADS, dtype=torch.float64)
    size = SIZES[readout] if readout != "rows" else pool.rows * WIDTH
    module = PoolingReplacement(call, pool, size, readout, dtype=torch.float64)
    if isinstance(module.readout, RowMix):
        nn.init.normal_(module.readout.weight)
    return module


@pytest.mark.parametrize(
    ("kind", "mask"),
    [
        ("real", REAL),
        ("real", REAL.float()),
        ("real", REAL[:, None, None].long()),
        ("padding", ~REAL),
        ("padding", torch.zeros(BATCH, TIME).masked_fill(~REAL, -math.inf)),
        ("lengths", LENGTHS),
        ("lengths", LENGTHS.int()),
        ("lengths", LENGTHS.double()),
    ],
)
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 0, 2), (0, 2, 1), (1, 2, 0)])
def test_a_call_is_read_whatever_its_mask_and_the_order_of_its_axes(kind, mask, axes):
    call = PoolingCall.from_record(PoolingCall(("mask", "states"), "states", axes, "mask", kind).record())
    given = batch().permute([axes.index(axis) for axis in range(3)])
    for sequence, real in (call.read((mask, given), {}), call.read((mask,), {"states": given})):
        assert torch.equal(sequence, batch())
        assert torch.equal(real, REAL)


def test_every_step_is_real_where_the_mask_is_left_out():
    call = PoolingCall(("states", "mask"), "states", mask="mask", mask_kind="padding")
    assert call.read((batch(),), {})[1] is None
    assert call.read((batch(), None), {})[1] is None


def test_steps_of_zeros_are_padding_where_the_old_pooling_passed_over_them():
    call = PoolingCall(("states",), "states", mask_kind="zeros")
    assert torch.equal(call.read((batch() * REAL[:, :, None],), {})[1], REAL)


def test_a_call_without_its_sequence_is_refused():
    for arguments in ((batch()[0],), (), (list(batch()),)):
        with pytest.raises(MethodError, match="had 3 axes, and is given a"):
            replacement()(*arguments)


def test_the_mean_is_over_real_steps_only_and_zero_where_there_is_none():
    sequence = batch().masked_fill(~REAL[:, :, None], math.nan)
    expected = torch.stack([row[:length].mean(0) for row, length in zip(batch(), LENGTHS, strict=True)])
    torch.testing.assert_close(MeanPooling(WIDTH)(sequence, REAL)[:, 0], expected, **SAME_FLOAT64)
    assert bool((MeanPooling(WIDTH)(sequence, torch.zeros_like(REAL)) == 0).all())


@pytest.mark.parametrize("readout", SIZES)
def test_the_output_and_its_gradients_are_those_of_the_rows_and_the_readout_in_loops(readout):
    module, sequence = replacement(readout), batch().requires_grad_()
    rows = module.pool(sequence, REAL)
    if readout == "mix":
        mixed = [sum(weight[i] * rows[:, i] for i in range(HEADS)) for weight in module.readout.weight]
        expected = torch.cat(mixed, 1)
    else:
        expected = torch.cat([rows[:, i] for i in range(HEADS)], 1)
        if readout == "linear":
            expected = expected @ module.readout.weight.T + module.readout.bias
    found = module(sequence, REAL)
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    weight, leaves = torch.randn_like(found), [sequence, *module.parameters()]
    pairs = [torch.autograd.grad((weight * part).sum(), leaves) for part in (found, expected)]
    for first, second in zip(*pairs, strict=True):
        torch.testing.assert_close(first, second, **SAME_FLOAT64)


@pytest.mark.parametrize("readout", SIZES)
@pytest.mark.parametrize("pool", [LamaAttention(WIDTH, HEADS, context="mean", dtype=torch.float64), MeanPooling(WIDTH)])
def test_it_is_rebuilt_from_its_record_and_weights_bit_for_bit(readout, pool):
    module = replacement(readout, pool=pool)
    rebuilt = PoolingReplacement.from_record(json.loads(json.dumps(module.record())), dtype=torch.float64)
    rebuilt.load_state_dict(module.state_dict())
    assert torch.equal(rebuilt(batch(), REAL), module(batch(), REAL))
    assert rebuilt.record() == module.record()


def test_any_module_of_the_users_may_be_replaced_but_not_the_model_itself():
    module = replacement()
    record = replace_record("1", module)
    model = nn.Sequential(nn.Identity(), nn.Flatten())
    apply_record(model, record)
    assert isinstance(model[1], LAYERS["pooling"][0])
    for name in ("", "2"):
        with pytest.raises(CheckpointError, match="and that is no module in this model"):
            apply_record(model, record | {"module": name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"readout": "rows"}, "`readout: rows` gives 3 x 5 features, and the output has 10"),
        ({"output_size": 11}, "sums of rows of 5 features, and the output has 11, no multiple"),
        ({"width": 4}, "`width` is not that of `lama`"),
        ({"width": 1 << 23, "lama": None, "readout": "linear", "output_size": 1 << 23}, "cannot be allocated"),
        ({"lama": {"width": 5}}, "`lama.heads`: Field required"),
        ({"call": {}}, "`call.arguments`: Field required"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        PoolingReplacement.from_record(replacement().record() | change)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": [0, 1, 1]}, "`axes` does not name each axis once"),
        ({"axes": [0, 1]}, "`axes`"),
        ({"mask_kind": None}, "`mask` and `mask_kind` do not belong together"),
        ({"mask": None}, "`mask` and `mask_kind` do not belong together"),
        ({"mask_kind": "code"}, "`mask_kind`"),
    ],
)
def test_a_record_of_a_call_that_is_not_valid_is_refused(change, message):
    with pytest.raises(CheckpointError) as caught:
        PoolingCall.from_record(replacement().call.record() | change)
    assert message in str(caught.value)


def test_a_readout_that_does_not_fit_the_sizes_is_refused_when_it_is_built():
    with pytest.raises(MethodError, match="no multiple"):
        PoolingReplacement(PoolingCall(("x",), "x"), MeanPooling(WIDTH), 13, "mix")


# --- fitting ---------------------------------------------------------------------------------------------------------


def samples_of(module, count=6):
    drawn = [batch(seed) for seed in range(count)]
    with torch.no_grad():
        return [Sample(sequence, REAL, module(sequence, REAL)) for sequence in drawn]


@pytest.mark.parametrize("readout", ["mix", "linear"])
def test_the_readout_is_found_where_the_heads_are_right_already(readout):
    goal, module = replacement(readout), replacement(readout)
    nn.init.zeros_(module.readout.weight)
    samples = samples_of(goal, 12)
    assert explained(module, samples) < 0.1
    assert solve_readout(module, samples)
    assert explained(module, samples) > 0.999


def test_what_is_explained_is_the_share_of_the_variance():
    module, samples = replacement(), samples_of(replacement(seed=1))
    outputs = torch.cat([sample.output for sample in samples])
    found = torch.cat([module(sample.sequence, REAL) for sample in samples]).detach()
    expected = 1 - (outputs - found).square().sum() / (outputs - outputs.mean(0)).square().sum()
    assert explained(module, samples) == pytest.approx(float(expected))
    assert math.isnan(explained(module, [Sample(batch(), REAL, torch.ones(BATCH, SUMS * WIDTH))]))


@pytest.mark.parametrize("readout", SIZES)
def test_a_fit_never_makes_it_worse_on_what_is_held_out_and_often_much_better(readout):
    goal, module = replacement(readout, seed=5), replacement(readout)
    samples = samples_of(goal, 9)
    before = explained(module, samples[6:])
    options = {"steps": 200, "lr": 1e-2, "generator": torch.Generator().manual_seed(0), "report": lambda *_: None}
    fit(module, samples[:6], samples[6:], **options)
    assert explained(module, samples[6:]) > before + 0.1 * (1 - before)
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module, samples[:6], samples[6:], **(options | {"lr": 1e3}))  # breaks it down, so nothing of it stays
    assert explained(module, samples[6:]) >= explained(replacement_with(kept, readout), samples[6:])


def replacement_with(state, readout):
    module = replacement(readout)
    module.load_state_dict(state)
    return module


@pytest.mark.parametrize(("rows", "sums"), [(1, 1), (3, 2), (5, 5)])
def test_every_sum_of_rows_starts_as_their_mean(rows, sums):
    x = torch.randn(2, rows, 7, dtype=torch.float64)
    mixed = RowMix(rows, sums, dtype=torch.float64)(x)
    torch.testing.assert_close(mixed, x.mean(1).repeat(1, sums), atol=1e-12, rtol=1e-12)
