"""A state-space layer: its recurrence is its convolution is its FFT, and dt says what a step is."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, UsageError
from compressor.nn.converted.convolved import by_convolution, by_fft
from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.lssl import LsslLayer, set_rate_scale
from compressor.nn.converted.state_system import LONGEST_STEP, SHORTEST_STEP
from tests.nn.converted.steps import in_steps

INPUT, OUTPUT, CHANNELS, UNITS, OSCILLATORS, NUMBERS = 3, 5, 7, 11, 4, 13
TYPES = {torch.float64: 1e-11, torch.float32: 1e-5}
STATES = {"diagonal": {"oscillators": OSCILLATORS}, "dense": {"state_size": NUMBERS}}
both = pytest.mark.parametrize("state", STATES)


def layer(dtype=torch.float64, *, state="diagonal", **options):
    torch.manual_seed(0)
    sizes = {"projection": CHANNELS, "hidden": UNITS, **STATES[state]}
    return LsslLayer(INPUT, OUTPUT, **(sizes | options), dtype=dtype)


def naive_diagonal(own, channels):
    """The bilinear rule in complex numbers, one position after the other: (B, P, T) -> (B, P, T)."""
    system = own.system
    step = own.rate_scale * torch.exp(system.log_step)[:, None]
    poles = torch.complex(-torch.exp(system.log_decay), system.frequency)
    a = (1 + step / 2 * poles) / (1 - step / 2 * poles)
    b = step / (1 - step / 2 * poles)
    state, outputs = torch.zeros(len(channels), *poles.shape, dtype=poles.dtype), []
    for u in channels.unbind(2):
        state = a * state + b * u[:, :, None]
        outputs.append(2 * (torch.complex(*system.mix) * state).sum(-1).real + system.skip * u)
    return torch.stack(outputs, 2)


def naive_dense(own, channels):
    """The bilinear rule solved anew at every position, channel by channel: (B, P, T) -> (B, P, T)."""
    system, answers = own.system, []
    symmetric = torch.diag(torch.exp(system.log_decay)) + torch.outer(system.damp, system.damp)
    one = torch.eye(NUMBERS, dtype=channels.dtype)
    turn = torch.zeros_like(one).index_put(tuple(torch.tril_indices(NUMBERS, NUMBERS, -1)), system.turn)
    matrix = turn - turn.T - symmetric / 2
    for channel, log_step in enumerate(system.log_step):
        step = own.rate_scale * torch.exp(log_step)
        state, outputs = torch.zeros(len(channels), NUMBERS, dtype=channels.dtype), []
        for u in channels[:, channel].unbind(1):
            right = (one + step / 2 * matrix) @ state.T + step * torch.outer(system.enter, u)
            state = torch.linalg.solve(one - step / 2 * matrix, right).T
            outputs.append(state @ system.mix[channel] + system.skip[channel] * u)
        answers.append(torch.stack(outputs, 1))
    return torch.stack(answers, 1)


NAIVE = {"diagonal": naive_diagonal, "dense": naive_dense}


@both
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", [1, 2, 45])
def test_recurrence_convolution_and_fft_are_one_and_so_are_their_gradients(state, dtype, length):
    own, channels = layer(dtype, state=state), torch.randn(2, CHANNELS, length, dtype=dtype, requires_grad=True)
    weights = [channels, *own.system.parameters()]
    forms = [form(channels.unsqueeze(-1), own.kernel(length)).squeeze(-1) for form in (by_fft, by_convolution)]
    forms.append(NAIVE[state](own, channels))
    gradients = [torch.autograd.grad(form.square().mean(), weights, retain_graph=True) for form in forms]
    for form, found in zip(forms[:2], gradients[:2], strict=True):
        torch.testing.assert_close(form, forms[2], atol=TYPES[dtype], rtol=TYPES[dtype])
        for one, other in zip(found, gradients[2], strict=True):
            torch.testing.assert_close(one, other, atol=10 * TYPES[dtype], rtol=100 * TYPES[dtype])


@both
@pytest.mark.parametrize("chunk", [1, 3])
def test_steps_give_what_the_whole_sequence_gives(state, chunk):
    own, x = layer(state=state, rate_scale=0.7), torch.randn(2, 30, INPUT, dtype=torch.float64)
    with torch.no_grad():
        by_convolution = own(x)
    torch.testing.assert_close(in_steps(own, x, chunk), by_convolution, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(own(x), by_convolution, atol=1e-12, rtol=1e-12)


@both
def test_no_state_ever_grows_whatever_the_parameters(state):
    own = layer(state=state)
    for weight in own.system.parameters():
        if weight is not own.system.mix:
            nn.init.normal_(weight, std=3.0)
    assert float(own.kernel(2000)[:, -1].detach().abs().max()) < 1e3


@pytest.mark.parametrize("sizes", [{}, {"oscillators": 2, "state_size": 3}])
def test_a_record_of_no_system_or_of_two_is_refused(sizes):
    record = {"input_size": 3, "output_size": 5, "projection": 2, "hidden": 4, "rate_scale": 1.0}
    with pytest.raises(CheckpointError, match="either `oscillators` or `state_size`"):
        LsslLayer.from_record({**record, **sizes})


@pytest.mark.parametrize(("state", "same", "other"), [("diagonal", 0.1, 0.3), ("dense", 0.01, 0.1)])
def test_half_the_sampling_rate_gives_the_same_answers_if_steps_are_twice_as_long(state, same, other):
    """A slow wave, and each second sample of it: outputs at the same times."""
    own = layer(state=state)
    with torch.no_grad():
        own.system.log_step.clamp_(max=math.log(0.1))
        if state == "diagonal":
            own.system.frequency.clamp_(max=2.0)  # nothing near the highest frequency of the samples
        own.system.skip.zero_()
        times = torch.arange(400, dtype=torch.float64)
        x = torch.stack([torch.sin(times / span) for span in (20.0, 33.0, 57.0)], 1)[None]
        whole = own(x)[:, ::2][:, 20:]
        unscaled, half = own(x[:, ::2])[:, 20:], None
        assert set_rate_scale(own, 2.0) == 1
        half = own(x[:, ::2])[:, 20:]
    scale = float(whole.std())
    assert float((half - whole).abs().max()) < same * scale
    assert float((unscaled - whole).abs().max()) > other * scale
    assert LsslLayer.from_record(own.record()).rate_scale == 2.0


def test_a_rate_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="rate scale of 0"):
        set_rate_scale(layer(), 0)
    with pytest.raises(UsageError, match="no state-space layer"):
        set_rate_scale(nn.Linear(2, 2), 2.0)


@pytest.mark.parametrize(
    "other",
    [
        nn.GRU(5, 2),
        nn.LSTMCell(5, 2),
        FsmnLayer(5, 2, projection=3, hidden=4, order=2, dilations=(1,)),
        LsslLayer(5, 2, projection=3, hidden=4, oscillators=2, memory_cache=2),
    ],
    ids=["gru", "cell", "fsmn", "lssl with segments"],
)
def test_a_model_with_layers_that_count_positions_is_refused_and_keeps_its_rate(other):
    model = nn.ModuleDict({"slow": layer(), "other": other})
    with pytest.raises(UsageError, match="know no length of a step: `other`"):
        set_rate_scale(model, 2.0)
    assert model["slow"].rate_scale == 1.0


@both
def test_the_start_is_finite(state):
    own = layer(state=state)
    own.start(torch.randn(100, INPUT), torch.randn(8, INPUT), torch.Generator().manual_seed(0))
    assert all(bool(weight.isfinite().all()) for weight in own.parameters())
    assert bool(own(torch.randn(1, 300, INPUT, dtype=torch.float64)).isfinite().all())


def test_steps_start_geometrically_and_oscillators_as_a_fourier_series():
    own = LsslLayer(3, 5, projection=7, hidden=11, oscillators=4, dtype=torch.float64)
    steps = own.system.log_step.exp().tolist()
    assert (steps[0], steps[-1]) == (pytest.approx(SHORTEST_STEP), pytest.approx(LONGEST_STEP))
    ratios = [after / before for before, after in itertools.pairwise(steps)]
    assert ratios == pytest.approx([ratios[0]] * 6, rel=1e-5)
    torch.testing.assert_close(own.system.log_decay.exp(), torch.full((7, 4), 0.5, dtype=torch.float64))
    wanted = torch.pi * torch.arange(4, dtype=torch.float64).repeat(7, 1)
    torch.testing.assert_close(own.system.frequency.detach(), wanted, atol=1e-6, rtol=1e-6)
