"""The loop of the samples' training is the plain one, with or without clipping."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[2] / "samples"))

from epochs import train_epochs


class Line:
    def batches(self, generator):
        for _ in range(3):
            x = torch.randn(5, 2, generator=generator)
            yield (x,), 9.0 * x.sum(1, keepdim=True)

    def loss(self, outputs, target):
        return nn.functional.mse_loss(outputs, target)


def naive(net, epochs, clip):
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    generator = torch.Generator().manual_seed(7)
    for number in range(3 * epochs):
        x = torch.randn(5, 2, generator=generator)
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5**number
        gradients = torch.autograd.grad((net(x) - 9.0 * x.sum(1, keepdim=True)).square().mean(), list(net.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient * min(1.0, clip / (float(norm) + 1e-6))
        optimizer.step()
    return net


@pytest.mark.parametrize("clip", [None, 1.0])
def test_every_batch_is_a_step_of_optimizer_and_schedule_and_every_epoch_tells_its_loss(clip, capsys):
    torch.manual_seed(0)
    start = nn.Linear(2, 1)
    net = copy.deepcopy(start)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    generator = torch.Generator().manual_seed(7)
    trained = train_epochs(Line(), net.train(), optimizer, schedule, epochs=2, generator=generator, clip=clip)
    assert trained is net
    assert not net.training
    expected = naive(copy.deepcopy(start), 2, clip or float("inf"))
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), atol=1e-6, rtol=1e-5)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1 of 2", "epoch 2 of 2"]
