"""A converted layer starts from the old layer's inputs and outputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.para_rnn import ParaLayer
from compressor.progress import Silent
from compressor.training.layer_fitting import Sample
from compressor.training.start_fitting import solve_readout, start, teach


def layer():
    torch.manual_seed(0)
    return FsmnLayer(3, 5, projection=7, hidden=11, order=4, dilations=(1,), dtype=torch.float64)


def samples(of, count=4, batch=6, length=9):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(batch, length, 3, generator=generator, dtype=torch.float64)
        lengths = torch.randint(2, length + 1, (batch,), generator=generator)
        counts = (torch.arange(length) < lengths[:, None]).double().unsqueeze(-1)
        with torch.no_grad():
            yield Sample(x, {}, of(x) * counts, counts)


@pytest.mark.parametrize("count", [1, 4])
def test_a_readout_that_gives_the_targets_is_found(count):
    own = layer()
    wanted, bias = torch.randn(5, 11, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    solve_readout(own, list(samples(lambda x: own.features(x) @ wanted.T + bias, count=count, batch=40)))
    torch.testing.assert_close(own.readout.weight.detach(), wanted, atol=1e-2, rtol=0)
    torch.testing.assert_close(own.readout.bias.detach(), bias, atol=1e-2, rtol=0)


def test_positions_behind_a_sequence_do_not_count():
    own = layer()
    given = list(samples(lambda x: x.cumsum(1) @ torch.ones(3, 5, dtype=torch.float64)))
    spoilt = [
        Sample(part.x + 100.0 * (1 - part.counts), {}, part.target - 7.0 * (1 - part.counts), part.counts)
        for part in given
    ]
    readouts = []
    for part in (given, spoilt):
        start([own], part, torch.eye(3), torch.Generator().manual_seed(0))
        readouts.append(own.readout.weight.detach().clone())
    torch.testing.assert_close(*readouts)


def test_layers_that_stand_for_one_hand_their_features_on_and_the_last_gives_the_targets():
    torch.manual_seed(0)
    sizes = {"hidden": 11, "dtype": torch.float64}
    stack = [ParaLayer(3, 11, **sizes), ParaLayer(11, 5, **sizes)]
    given = list(samples(lambda x: x.cumsum(1) @ torch.ones(3, 5, dtype=torch.float64)))
    start(stack, given, torch.eye(3), torch.Generator().manual_seed(0))
    between = stack[0](given[0].x)
    torch.testing.assert_close(between, stack[0].features(given[0].x))
    alone = Sample(between.detach(), {}, given[0].target, given[0].counts)
    readout = stack[1].readout.weight.detach().clone()
    solve_readout(stack[1], [alone, *(replace(part, x=stack[0](part.x).detach()) for part in given[1:])])
    torch.testing.assert_close(stack[1].readout.weight.detach(), readout)


def test_a_stage_that_makes_a_layer_worse_is_undone():
    own = layer()
    given = list(samples(lambda x: x.cumsum(1) @ torch.ones(3, 5, dtype=torch.float64)))
    kwargs = {"seed": 0, "quick": False, "progress": Silent(), "label": "rnn"}
    before = teach([own], given, torch.eye(3), steps=0, lr=1e-3, **kwargs)
    kept = {name: value.clone() for name, value in own.state_dict().items()}
    after = teach([own], given, torch.eye(3), steps=3, lr=10.0, **kwargs)
    assert after["error after distillation"] > before["error at the start (least squares)"]
    assert all(value.equal(kept[name]) for name, value in own.state_dict().items())
