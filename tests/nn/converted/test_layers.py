"""What every target of a conversion promises beside its equations: its record, its usual form and where it starts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compressor.methods.conversion_targets import builder
from compressor.methods.convert import Convert
from compressor.nn.converted.additive import AdditiveLayer
from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.lssl import LsslLayer, set_rate_scale
from compressor.nn.converted.m2rnn import M2rnnLayer
from compressor.nn.converted.para_rnn import ParaLayer
from compressor.nn.converted.plstm import PlstmLayer
from compressor.nn.converted.recurrent import TARGETS
from compressor.nn.converted.starts import start_channels, start_units
from compressor.nn.converted.state_system import LONGEST_STEP, SHORTEST_STEP

SIZES = {"input_size": 3, "output_size": 5}
NO_CACHE = {"memory_cache": 0, "cache_segment": 16}
CACHE = {"memory_cache": 2, "cache_segment": 3}
SYSTEM = {"projection": 6, "hidden": 9, "rate_scale": 0.5}
OSCILLATORS, DENSE = {"oscillators": 2, "state_size": None}, {"oscillators": None, "state_size": 4}
HEADS = {"heads": 2, "keys": 4, "values": 3, "hidden": 9}
RECORDS = {
    **{
        word: (kind, {name: value for name, value in kind.usual(9).items() if name not in SIZES})
        for word, kind in TARGETS.items()
    },
    "fsmn": (FsmnLayer, {"projection": 6, "hidden": 9, "order": 4, "dilations": [1, 3], "lookahead": 2}),
    "lssl": (LsslLayer, SYSTEM | OSCILLATORS | NO_CACHE),
    "dense lssl": (LsslLayer, SYSTEM | DENSE | NO_CACHE),
    "lssl, cached": (LsslLayer, SYSTEM | OSCILLATORS | CACHE),
    "dense lssl, cached": (LsslLayer, SYSTEM | DENSE | CACHE),
    "para gru": (ParaLayer, {"hidden": 9, "cell": "gru", "clip": 0.75}),
    "para lstm": (ParaLayer, {"hidden": 9, "cell": "lstm", "clip": 0.25}),
    "m2rnn": (M2rnnLayer, HEADS),
    "plstm": (PlstmLayer, HEADS | {"constant_gates": False}),
    "plstm, constant": (PlstmLayer, HEADS | {"constant_gates": True}),
    "additive": (AdditiveLayer, HEADS | {"forget": True} | NO_CACHE),
    "additive, no fading": (AdditiveLayer, HEADS | {"forget": False} | NO_CACHE),
    "additive, cached": (AdditiveLayer, HEADS | {"forget": True} | CACHE),
}
each = pytest.mark.parametrize(("kind", "fields"), RECORDS.values(), ids=list(RECORDS))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@each
def test_a_layer_has_the_sizes_and_the_type_that_it_is_given_and_its_record_says_so(kind, fields):
    own = kind.from_fields({**SIZES, **fields}, dtype=torch.float64)
    assert own.record() == {**SIZES, **fields}
    assert (own.input_size, own.output_size) == (3, 5)
    assert {weight.dtype for weight in own.parameters()} == {torch.float64}
    on_meta = kind.from_fields({**SIZES, **fields}, device="meta")
    assert {(weight.device.type, weight.dtype) for weight in on_meta.parameters()} == {("meta", torch.float32)}
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    assert own(x).shape == (2, 7, 5)
    assert own.features(x).shape == (2, 7, 9)


@each
def test_a_record_gives_the_structure_again_and_its_weights_the_outputs(kind, fields):
    own = kind.from_fields({**SIZES, **fields}, dtype=torch.float64)
    again = kind.from_record(own.record(), dtype=torch.float64)
    again.load_state_dict(own.state_dict())
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(again(x), own(x), rtol=0, atol=0)
    assert again.extra_repr() == own.extra_repr() != ""


@pytest.mark.parametrize("kind", TARGETS.values())
@pytest.mark.parametrize("width", [1, 2, 15, 64])
def test_the_usual_layer_of_a_width_has_it_at_both_ends_and_as_many_units(kind, width):
    usual = kind.usual(width)
    own = kind.from_fields(usual)
    assert own.record() == usual
    assert (own.input_size, own.output_size, own.readout.in_features) == (width, width, width)
    channels = usual.get("projection", usual.get("values"))
    if channels is not None:
        assert channels == max(1, width // (2 if "projection" in usual else 8))
    assert own(torch.randn(1, 3, width)).shape == (1, 3, width)


@pytest.mark.parametrize(("word", "kind"), TARGETS.items())
def test_the_usual_structure_is_that_of_the_options_of_convert(word, kind):
    build = builder(word, Convert(to=word).model_dump(), nn.GRU(16, 16))
    [own] = build(16, 16, torch.zeros(()))
    assert own.record() == kind.usual(16)


@each
def test_in_proportion_widths_grow_together_and_nothing_else_does(kind, fields):
    record = kind.from_fields({**SIZES, **fields}, device="meta").record()
    wider = kind.in_proportion(record, 20)
    for name, value in record.items():
        if name in ("input_size", "output_size"):
            assert wider[name] == 20
        else:
            assert wider[name] == (4 * value if name in ("projection", "hidden", "values") else value)
    least = kind.in_proportion(record, 1)
    assert all(least[name] >= 1 for name in kind.inner_widths)
    assert kind.from_fields(least)(torch.randn(1, 4, 1)).shape == (1, 4, 1)


@each
def test_a_layer_remembers_and_looks_ahead_as_far_as_it_says(kind, fields):
    own = kind.from_fields({**SIZES, **fields}, dtype=torch.float64)
    x = torch.randn(1, 30, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(own(x)[0, 15].sum(), x)
    seen = (gradient[0].abs().sum(-1) > 1e-12).nonzero().flatten() - 15
    assert (own.memory is None) == (kind is not FsmnLayer)
    assert int(seen.min()) == (-15 if own.memory is None else -own.memory)
    assert int(seen.max()) == own.lookahead


def inputs(count=400):
    x = torch.randn(count, 3, generator=seeded(5), dtype=torch.float64)
    return x * torch.tensor([1.0, 10.0, 0.1]) + torch.tensor([5.0, 0.0, -2.0])


def test_channels_start_along_what_drove_the_old_layer_most_with_unit_variance():
    x, channels = inputs(), nn.Linear(3, 8, dtype=torch.float64)
    drive = torch.tensor([[0.0, 0.0, 50.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    assert start_channels(channels, x, drive) == 3
    given = channels(x).detach()
    torch.testing.assert_close(given.mean(0), torch.zeros(8, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(given.std(0, unbiased=False), torch.ones(8, dtype=torch.float64))
    for turn in (0, 3, 6):  # the third input, of deviation 0.1, times 50 is more than the first times 2
        torch.testing.assert_close(given[:, turn], given[:, 0])
    normal = (x - x.mean(0)) / x.std(0, unbiased=False)
    assert float((given[:, 0] * normal[:, 2]).mean().abs()) == pytest.approx(1.0, abs=1e-6)
    assert float((given[:, 1] * normal[:, 0]).mean().abs()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("channels", "spread"), [(1, 1), (2, 1), (3, 1), (4, 2), (6, 3), (9, 3)])
def test_directions_are_repeated_so_that_each_channel_has_one_and_most_come_twice(channels, spread):
    project = nn.Linear(3, channels, dtype=torch.float64)
    assert start_channels(project, inputs(), torch.randn(4, 3, generator=seeded(1))) == spread
    rows = project.weight.detach()
    assert all(torch.equal(rows[channel], rows[channel % spread]) for channel in range(channels))
    assert torch.linalg.matrix_rank(rows) == spread


def test_an_input_that_never_changes_gives_finite_channels():
    x, project = inputs(), nn.Linear(3, 8, dtype=torch.float64)
    x[:, 1] = 7.0
    start_channels(project, x, torch.ones(2, 3))
    given = project(x).detach()
    assert bool(given.isfinite().all())
    assert float(given.abs().max()) < 20


@pytest.mark.parametrize("units", [1, 2, 7, 2000])
def test_units_start_in_pairs_of_opposite_unit_directions_with_random_thresholds(units):
    expand = nn.Linear(5, units, dtype=torch.float64)
    start_units(expand, seeded())
    rows, half = expand.weight.detach(), -(-units // 2)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(units, dtype=torch.float64))
    assert torch.equal(rows[half:], -rows[: units - half])
    if units == 2000:
        assert float(expand.bias.detach().std()) == pytest.approx(0.5, rel=0.1)
        assert float(expand.bias.detach().mean()) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 7, 12])
def test_oscillators_start_with_channels_from_fast_to_slow_each_time_all_directions_are_there(channels):
    own = LsslLayer(3, 5, projection=channels, hidden=9, oscillators=400, dtype=torch.float64)
    own.start(inputs(), torch.randn(4, 3, generator=seeded(1)), seeded())
    spread = min(3, max(1, channels // 2))
    turns = [channel // spread for channel in range(channels)]
    steps = [LONGEST_STEP * (SHORTEST_STEP / LONGEST_STEP) ** (turn / max(1, turns[-1])) for turn in turns]
    assert own.system.log_step.exp().tolist() == pytest.approx(steps)
    assert float(own.system.mix.detach().std()) == pytest.approx(1 / 20, rel=0.15)
    torch.testing.assert_close(own.project(inputs()).std(0, unbiased=False), torch.ones(channels, dtype=torch.float64))
    assert bool((own.expand.weight.norm(dim=1) - 1).abs().max() < 1e-9)
    fresh = LsslLayer(3, 5, projection=channels, hidden=9, oscillators=400, dtype=torch.float64)
    assert float(fresh.system.mix.detach().std()) == pytest.approx(1 / 20, rel=0.15)
    assert fresh.system.skip.tolist() == [1.0] * channels


@pytest.mark.parametrize("scale", [-1.0, 0.0, math.inf, math.nan])
def test_a_scale_of_the_rate_that_cannot_be_changes_nothing(scale):
    from compressor.errors import UsageError

    model = nn.Sequential(*(LsslLayer(3, 3, projection=2, hidden=4, oscillators=2) for _ in range(2)))
    with pytest.raises(UsageError, match="a rate scale of"):
        set_rate_scale(model, scale)
    assert [layer.rate_scale for layer in model] == [1.0, 1.0]
    assert set_rate_scale(model, 0.25) == 2
    assert [layer.rate_scale for layer in model] == [0.25, 0.25]


def averaged(own):
    """How many positions each unit averages over, as its own bias says: 1 over what is written at once."""
    bias = own.project.bias.detach() + own.project.weight.detach() @ inputs().mean(0)
    share = torch.sigmoid(bias[:2000] if own.cell == "gru" else -bias[:2000])  # z is written; 1 - f is
    return 0.9 / share


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_gates_start_with_a_little_of_the_inputs_and_units_from_one_position_to_a_hundred(cell):
    torch.manual_seed(0)
    own = ParaLayer(3, 5, hidden=2000, cell=cell, dtype=torch.float64)
    wanted = (100.0 ** torch.linspace(0, 1, 2000, dtype=torch.float64)).tolist()
    bias = own.project.bias.detach()[:2000]
    assert (0.9 / torch.sigmoid(bias if cell == "gru" else -bias)).tolist() == pytest.approx(wanted)
    assert all(float(part.detach().std()) == pytest.approx(0.1, rel=0.1) for part in own.diagonals)
    own.start(inputs(), torch.randn(4, 3, generator=seeded(1)), seeded())
    assert averaged(own).tolist() == pytest.approx(wanted)
    assert all(float(part.detach().std()) == pytest.approx(0.1, rel=0.1) for part in own.diagonals)
    at_mean = own.project(inputs().mean(0)).detach().chunk(3)
    given = own.project(inputs()).detach().chunk(3, -1)
    spread = [float(part.var(0, unbiased=False).mean().sqrt()) for part in given]
    write = 2 if cell == "gru" else 1
    for gate in range(3):
        assert spread[gate] == pytest.approx(1.0 if gate == write else 0.3, rel=0.1)
        if gate:
            assert float(at_mean[gate].std()) == pytest.approx(0.5 if gate == write else 0.0, abs=0.05)


def test_additive_sums_start_with_all_spans_in_every_head_and_random_scores_of_the_channels():
    heads, keys = 8, 40
    own = AdditiveLayer(3, 5, heads=heads, keys=keys, values=2, hidden=9, dtype=torch.float64)
    spans = torch.logspace(math.log10(0.3), math.log10(300.0), heads * keys, dtype=torch.float64)
    for _ in range(2):
        fading = torch.exp(own.log_fade.detach())
        torch.testing.assert_close(fading.flatten().sort(descending=True).values, 1 / spans, rtol=1e-5, atol=0)
        assert bool((fading[:, 0] > 2).all())
        assert bool((fading[:, -1] < 1 / 200).all())
        nn.init.zeros_(own.log_fade)
        own.start(inputs(), torch.randn(4, 3, generator=seeded(1)), seeded())
    x = inputs()
    scores, queries, values = own.project(x).detach().unflatten(-1, (heads, -1)).split([keys, keys, 2], -1)
    torch.testing.assert_close(values.flatten(1).std(0, unbiased=False), torch.ones(16, dtype=torch.float64))
    for part in (scores, queries):
        assert float(part.mean(0).std()) == pytest.approx(1.0, rel=0.2)
        assert float(part.std(0).square().mean().sqrt()) == pytest.approx(0.5, rel=0.2)
    torch.testing.assert_close(own.expand.weight.norm(dim=1), torch.ones(9, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fsmn", "order 4, dilations 1, 3"),
        ("lssl", "2 oscillators a channel"),
        ("dense lssl", "a dense state of 4 numbers a channel"),
        ("para gru", "diagonal GRU, clip 0.75"),
        ("para lstm", "diagonal LSTM, clip 0.25"),
        ("additive", "2 heads of 4 key channels"),
        ("additive, no fading", "2 heads of 4 key channels, nothing forgotten"),
        ("plstm", "2 heads of 4 key channels"),
        ("m2rnn", "2 heads, matrices of 4 rows"),
        ("plstm, constant", "2 heads of 4 key channels, constant gates"),
        ("additive, cached", "2 heads of 4 key channels, 2 slots of 3"),
    ],
)
def test_a_structure_is_described_without_its_sizes(name, text):
    kind, fields = RECORDS[name]
    assert kind.described({**SIZES, **fields}) == text
