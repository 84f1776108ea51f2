"""Normalisations of a model's own code are known by what they compute, and can lose features."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.errors import CheckpointError
from compressor.nn.own_norm import WideOwnNorm, own_norm
from tests.tolerances import SAME_FLOAT64

WIDTH = 11


def parameter(*shape):
    return nn.Parameter(torch.rand(shape, dtype=torch.float64) + 0.5)


class Scaled(nn.Module):
    """A weight and a bias of any name."""

    def __init__(self, shape=(WIDTH,)):
        super().__init__()
        self.gain, self.shift, self.eps = parameter(*shape), parameter(*shape), 1e-6


class OutsideUnbiased(Scaled):
    """As in "The Annotated Transformer"."""

    def forward(self, x):
        return self.gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.shift


class Inside(Scaled):
    def forward(self, x):
        var, mean = torch.var_mean(x, dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + 1e-3) * self.gain + self.shift


class Functional(Scaled):
    def forward(self, x):
        return functional.layer_norm(x, (WIDTH,), self.gain, self.shift, self.eps)


class ChannelsFirst(Scaled):
    def __init__(self):
        super().__init__((1, WIDTH, 1))

    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps) * self.gain + self.shift


class TransposedAround(nn.LayerNorm):
    def __init__(self):
        super().__init__(WIDTH, dtype=torch.float64)

    def forward(self, x):
        return super().forward(x.transpose(1, -1)).transpose(1, -1)


class OfPictures(nn.LayerNorm):
    """As ConvNeXt has it: takes (B, C, H, W) only."""

    def __init__(self):
        super().__init__(WIDTH, eps=1e-6, dtype=torch.float64)

    def forward(self, x):
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class OnePlus(nn.Module):
    """A root mean square whose weight is stored as its distance from 1."""

    def __init__(self):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(WIDTH).double() - 0.5), 1e-6

    def forward(self, hidden_states):
        scale = torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return hidden_states * scale * (1.0 + self.weight)


NORMS = (OutsideUnbiased, Inside, Functional, ChannelsFirst, TransposedAround, OnePlus)


@pytest.mark.parametrize("kind", NORMS)
def test_the_form_gives_what_the_module_gives_and_its_gradients(kind):
    torch.manual_seed(0)
    module = kind()
    wide = WideOwnNorm.from_module(module)
    x = (torch.randn(3, WIDTH, WIDTH, dtype=torch.float64) * 2 + 1).requires_grad_()
    direction = torch.randn_like(x)
    found, expected = wide(x), module(x)
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    ours, theirs = (torch.autograd.grad(y, [x], direction)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, **SAME_FLOAT64)


def test_one_of_pictures_is_known_too():
    module, x = OfPictures(), torch.randn(2, WIDTH, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(WideOwnNorm.from_module(module)(x), module(x), **SAME_FLOAT64)


@pytest.mark.parametrize("kind", NORMS)
def test_what_is_removed_counts_on_as_zeros(kind):
    torch.manual_seed(0)
    module, kept = kind(), torch.tensor([0, 2, 3, 7])
    wide = WideOwnNorm.from_module(module)
    axis = wide.form.axis
    for name, old in list(wide.named_parameters()):
        setattr(wide, name, nn.Parameter(old.detach()[kept]))
    size = [2, 5, 3]
    size[axis] = len(kept)
    x = torch.randn(size, dtype=torch.float64)
    size[axis] = WIDTH
    filled = torch.zeros(size, dtype=torch.float64).index_copy(axis, kept, x)
    torch.testing.assert_close(wide(x), module(filled).index_select(axis, kept), **SAME_FLOAT64)


class ForgetsTheMean(Scaled):
    """Nearly a layer normalisation: half of the mean is left."""

    def forward(self, x):
        return (x - x.mean(-1, keepdim=True) / 2) / (x.var(-1, keepdim=True) + self.eps).sqrt() * self.gain + self.shift


class Noisy(Inside):
    def forward(self, x):
        return super().forward(x) + (0.1 if self.training else 0.0)


class Nested(Inside):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)


@pytest.mark.parametrize("kind", [ForgetsTheMean, Noisy, Nested, lambda: nn.Linear(3, 3), lambda: nn.LayerNorm(3)])
def test_anything_else_is_none(kind):
    assert own_norm(kind()) is None


@pytest.mark.parametrize(("change", "text"), [({"features": 12}, "cannot be left"), ({"axis": 2}, "axis is -1 or 1")])
def test_a_record_that_makes_no_sense_is_refused(change, text):
    record = WideOwnNorm.from_module(Inside()).record()
    assert WideOwnNorm.from_record(record).features == WIDTH
    with pytest.raises(CheckpointError, match=text):
        WideOwnNorm.from_record(record | change)
