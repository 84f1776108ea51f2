"""Convolutions of one to three axes: strides, groups, transposed ones."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from tests.surgery.trace.chains import CLASSES, WIDTH, Channels, planes, smaller

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Middle(Channels):
    """A layer of 12 channels in between."""

    def __init__(self, middle, axes):
        super().__init__(middle, axes)


def halved(middle, axes, names=("first",)):
    return smaller(Middle(middle, axes), planes(axes), names=names)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"padding": 1}, {"dilation": 2, "padding": 2}, {"padding": 1, "padding_mode": "circular"}],
    ids=str,
)
def test_channels_that_a_convolution_takes_in_and_gives_out(axes, bias, options):
    found = halved(
        CONVOLUTIONS[axes - 1](WIDTH, WIDTH, 3 - (options == {"stride": 2}), bias=bias, **options),
        axes,
        ("first", "function"),
    )
    middle = found.function
    assert (found.first.out_channels, middle.in_channels, middle.out_channels) == (6, 6, 6)
    assert found.head.in_channels == 6
    assert not bias or middle.bias.numel() == 6


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": 1, "output_padding": 1, "stride": 2}], ids=str)
def test_channels_of_a_transposed_convolution(axes, options):
    found = halved(TRANSPOSED[axes - 1](WIDTH, 8, 2, **options), axes, ("first", "function"))
    assert found.function.weight.shape[:2] == (6, 4)
    assert (found.function.in_channels, found.function.out_channels) == (6, 4)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("groups", [2, 3])
def test_each_group_loses_the_same_number(axes, groups):
    found = halved(CONVOLUTIONS[axes - 1](WIDTH, WIDTH, 1, groups=groups), axes, ("first", "function"))
    assert (found.function.groups, found.function.out_channels) == (groups, 6)
    assert found.function.in_channels == 6


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("axes", [1, 2])
def test_whole_groups_go_where_each_has_one_channel(axes, multiplier):
    found = halved(CONVOLUTIONS[axes - 1](WIDTH, multiplier * WIDTH, 1, groups=WIDTH), axes)
    middle = found.function
    assert (middle.groups, middle.in_channels, middle.out_channels) == (6, 6, 6 * multiplier)


@pytest.mark.parametrize("axes", [1, 2])
def test_groups_of_a_transposed_convolution(axes):
    found = halved(TRANSPOSED[axes - 1](WIDTH, WIDTH, 2, groups=WIDTH), axes)
    assert (found.function.groups, found.function.in_channels, found.function.out_channels) == (6, 6, 6)
    found = halved(TRANSPOSED[axes - 1](WIDTH, 8, 2, groups=2), axes, ("first", "function"))
    assert (found.function.groups, found.function.in_channels, found.function.out_channels) == (2, 6, 4)


def test_a_convolution_over_the_features_keeps_them():
    class Over(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.head = nn.Linear(5, WIDTH), nn.Conv1d(6, 6, 3, padding=1), nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.head(self.conv(self.first(x)))

    with pytest.raises(SurgeryError, match=r"the convolution at .* slides over it"):
        smaller(Over(), [torch.randn(2, 6, 5).double()])


def test_one_group_for_each_of_the_models_inputs_stays():
    class Depthwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Conv1d(2, 4, 1, groups=2), nn.Conv1d(4, CLASSES, 1)

        def forward(self, x):
            return self.head(self.first(x))

    with pytest.raises(SurgeryError, match=r"one group for each of its inputs, which stay"):
        smaller(Depthwise(), planes(1))


def test_a_kernel_that_the_model_computes_keeps_its_channels():
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Conv1d(2, WIDTH, 1), nn.Conv1d(WIDTH, CLASSES, 1)

        def forward(self, x):
            kernel = torch.ones(WIDTH, WIDTH, 1).to(x) * x.mean()
            return self.head(torch.conv1d(self.first(x), kernel))

    with pytest.raises(SurgeryError, match=r"convolution.*is not followed"):
        smaller(Computed(), planes(1))
