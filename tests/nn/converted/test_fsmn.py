"""An FSMN layer computes its formula, whole and position by position, with the same gradients."""

from __future__ import annotations

import math

import pytest
import torch

from compressor.errors import CheckpointError
from compressor.nn.converted.fsmn import FsmnLayer
from tests.nn.converted.steps import in_steps

INPUT, OUTPUT, CHANNELS, UNITS = 3, 5, 7, 11
SHAPES = (
    {"order": 4, "dilations": (1,)},
    {"order": 2, "dilations": (3, 1, 2)},
    {"order": 3, "dilations": (1, 5), "lookahead": 2},
)


def layer(**options):
    torch.manual_seed(0)
    return FsmnLayer(INPUT, OUTPUT, projection=CHANNELS, hidden=UNITS, dtype=torch.float64, **options)


def naive(own, x):
    """The formula, one position, memory and tap at a time: (B, T, I) -> (B, T, O)."""
    p = [x[:, t] @ own.project.weight.T + own.project.bias for t in range(x.shape[1])]
    for index, dilation in enumerate(own.dilations):
        taps = own.memories[index].weight[:, 0, :, 0]  # (P, N + L), the oldest first
        remembered, units = [], []
        for t in range(len(p)):
            m = p[t]
            for place in range(taps.shape[1]):
                at = t + (place - (own.order - 1)) * dilation
                if 0 <= at < len(p):
                    m = m + taps[:, place] * p[at]
            remembered.append(m)
            units.append(torch.relu(m @ own.expand[index].weight.T + own.expand[index].bias))
        if index < len(own.dilations) - 1:
            p = [m + u @ own.back[index].weight.T for m, u in zip(remembered, units, strict=True)]
    return torch.stack([u @ own.readout.weight.T + own.readout.bias for u in units], 1)


@pytest.mark.parametrize("options", SHAPES)
@pytest.mark.parametrize("length", [1, 2, 13])
def test_a_whole_sequence_is_the_formula_and_so_are_its_gradients(options, length):
    own, x = layer(**options), torch.randn(2, length, INPUT, dtype=torch.float64, requires_grad=True)
    weights = [x, *own.parameters()]
    outputs = [own(x), naive(own, x)]
    gradients = [torch.autograd.grad(output.square().sum(), weights) for output in outputs]
    torch.testing.assert_close(*outputs, atol=1e-12, rtol=1e-12)
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("options", SHAPES[:2])
@pytest.mark.parametrize("chunk", [1, 3, 19])
def test_steps_of_any_size_give_what_the_whole_sequence_gives(options, chunk):
    own, x = layer(**options), torch.randn(2, 38, INPUT, dtype=torch.float64)
    torch.testing.assert_close(in_steps(own, x, chunk), own(x), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("options", SHAPES)
def test_memory_and_look_ahead_are_as_long_as_the_layer_says(options):
    own, x = layer(**options), torch.randn(1, 41, INPUT, dtype=torch.float64, requires_grad=True)
    for memory in own.memories:
        torch.nn.init.uniform_(memory.weight, 0.5, 1.0)  # no tap is near zero
    for linear in (*own.expand, *own.back, own.readout):
        torch.nn.init.uniform_(linear.weight, 0.1, 0.2)
    for linear in own.expand:
        torch.nn.init.constant_(linear.bias, 100.0)  # every unit is on
    middle = 20
    reached = torch.autograd.grad(own(x)[0, middle].sum(), x)[0][0].abs().sum(1).nonzero().flatten()
    assert int(reached.min()) == max(0, middle - own.memory)
    assert int(reached.max()) == middle + own.lookahead


def test_what_comes_behind_a_sequence_is_not_seen_from_inside_it():
    own, x = layer(order=3, dilations=(2, 1), lookahead=2), torch.randn(1, 9, INPUT, dtype=torch.float64)
    valid = torch.ones(1, 9, 1, dtype=torch.float64)
    valid[:, 5:] = 0.0
    torch.testing.assert_close(own(x, valid)[:, :5], own(x[:, :5]), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("inputs", [1, 3, 12])
def test_the_start_has_channels_of_unit_variance_and_finite_weights(inputs):
    own = FsmnLayer(inputs, OUTPUT, projection=CHANNELS, hidden=UNITS, order=5, dilations=(1, 2))
    x = 3.0 + 2.0 * torch.randn(1000, inputs)
    own.start(x, torch.randn(8, inputs), torch.Generator().manual_seed(0))
    channels = own.project(x)
    assert all(bool(weight.isfinite().all()) for weight in own.parameters())
    torch.testing.assert_close(channels.std(0), torch.ones(CHANNELS), atol=1e-2, rtol=0)
    torch.testing.assert_close(channels.mean(0), torch.zeros(CHANNELS), atol=1e-3, rtol=0)


def test_an_input_that_never_changes_does_not_spoil_the_start():
    own = layer(order=3, dilations=(1,))
    x = torch.cat([torch.randn(50, INPUT - 1, dtype=torch.float64), torch.ones(50, 1, dtype=torch.float64)], 1)
    own.start(x, torch.randn(8, INPUT), torch.Generator().manual_seed(0))
    assert bool(own(x[None]).isfinite().all())


def test_a_record_gives_the_same_structure_and_a_wrong_one_is_refused():
    own = layer(order=3, dilations=(1, 5), lookahead=2)
    rebuilt = FsmnLayer.from_record(own.record())
    assert {key: value.shape for key, value in rebuilt.state_dict().items()} == {
        key: value.shape for key, value in own.state_dict().items()
    }
    with pytest.raises(CheckpointError, match="order"):
        FsmnLayer.from_record(own.record() | {"order": 1})


@pytest.mark.parametrize("lookahead", [0, 3])
@pytest.mark.parametrize("spread", [1, 2, CHANNELS])
def test_memories_start_as_means_that_fade_from_one_position_to_the_order(lookahead, spread):
    own, order = layer(order=6, dilations=(1, 2), lookahead=lookahead), 6
    with torch.no_grad():
        own._start_memories(spread)
    last = (CHANNELS - 1) // spread
    for memory in own.memories:
        for channel in range(CHANNELS):
            constant = order ** ((channel // spread) / max(1, last))
            behind = [math.exp(-age / constant) for age in range(order - 1, -1, -1)]
            ahead = [math.exp(-age / constant) for age in range(1, lookahead + 1)]
            wanted = [tap / sum(part) for part in (behind, ahead) for tap in part]
            assert memory.weight[channel, 0, :, 0].tolist() == pytest.approx(wanted, rel=1e-12)
