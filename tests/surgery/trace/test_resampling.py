"""Interpolation, padding and shuffles into space: channel by channel."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compressor.errors import SurgeryError
from tests.surgery.trace.chains import WIDTH, Channels, planes, smaller

ALONG = {
    "nearest 1": (1, lambda y: F.interpolate(y, scale_factor=2)),
    "nearest 2": (2, lambda y: F.interpolate(y, size=(7, 3))),
    "nearest 3": (3, lambda y: F.interpolate(y, scale_factor=2)),
    "exact 1": (1, lambda y: F.interpolate(y, size=5, mode="nearest-exact")),
    "exact 2": (2, lambda y: F.interpolate(y, scale_factor=2, mode="nearest-exact")),
    "exact 3": (3, lambda y: F.interpolate(y, scale_factor=2, mode="nearest-exact")),
    "linear": (1, lambda y: F.interpolate(y, size=11, mode="linear")),
    "bilinear": (2, lambda y: F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)),
    "bilinear, smoothed": (2, lambda y: F.interpolate(y, size=(3, 3), mode="bilinear", antialias=True)),
    "trilinear": (3, lambda y: F.interpolate(y, size=(3, 4, 5), mode="trilinear")),
    "bicubic": (2, lambda y: F.interpolate(y, scale_factor=2, mode="bicubic")),
    "bicubic, smoothed": (2, lambda y: F.interpolate(y, size=(3, 4), mode="bicubic", antialias=True)),
    "largest of 3 axes": (3, lambda y: F.max_pool3d(y, 2)),
    "mean of 3 axes": (3, lambda y: F.avg_pool3d(y, 2, padding=1)),
    "adaptive mean of 3 axes": (3, lambda y: F.adaptive_avg_pool3d(y, 2)),
    "adaptive largest of 3 axes": (3, lambda y: F.adaptive_max_pool3d(y, (1, None, 2))),
    "reflection 1": (1, lambda y: F.pad(y, (2, 1), mode="reflect")),
    "reflection 2": (2, lambda y: F.pad(y, (2, 1, 1, 1), mode="reflect")),
    "reflection 3": (3, lambda y: F.pad(y, (1, 1, 1, 1, 1, 1), mode="reflect")),
    "replication 1": (1, lambda y: F.pad(y, (2, 1), mode="replicate")),
    "replication 2": (2, lambda y: F.pad(y, (2, 1, 1, 1), mode="replicate")),
    "replication 3": (3, lambda y: F.pad(y, (1, 1, 1, 1, 1, 1), mode="replicate")),
    "circular": (2, lambda y: F.pad(y, (2, 1, 1, 1), mode="circular")),
    "a grid": (2, lambda y: F.grid_sample(y, _grid(y, 2), align_corners=False)),
    "a grid of 3 axes": (3, lambda y: F.grid_sample(y, _grid(y, 3), align_corners=True)),
}


def _grid(y, axes):
    return (
        torch.linspace(-1, 1, 3 * axes, dtype=y.dtype)
        .view(1, *[1] * (axes - 1), 3, axes)
        .expand(len(y), *[-1] * (axes + 1))
    )


@pytest.mark.parametrize("name", ALONG)
def test_channels_are_followed_through(name):
    axes, function = ALONG[name]
    found = smaller(Channels(function, axes), planes(axes))
    assert (found.first.out_channels, found.head.in_channels) == (WIDTH // 2, WIDTH // 2)


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (lambda y: F.interpolate(y, size=WIDTH, mode="linear"), "resampling"),
        (lambda y: F.pad(y, (1, 1), mode="reflect"), "resampling"),
        (lambda y: F.adaptive_avg_pool1d(y, WIDTH), "pooling"),
    ],
)
def test_features_along_the_axis_stay(function, word):
    class Along(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(5, WIDTH), nn.LazyLinear(3)

        def forward(self, x):
            return self.head(function(self.first(x)))

    with pytest.raises(SurgeryError, match=rf"the {word} at test_resampling\.py:\d+ slides over it"):
        smaller(Along(), [torch.randn(2, 6, 5).double()])


def test_four_channels_make_one_twice_as_large():
    found = smaller(Channels(lambda y: F.pixel_shuffle(y, 2), 2), planes(2))
    assert (found.first.out_channels, found.head.in_channels) == (8, 2)  # of three squares of channels one goes


def test_one_channel_makes_four_half_as_large():
    model = Channels(lambda y: F.pixel_unshuffle(y[..., :4, :4], 2), 2)
    found = smaller(model, planes(2))
    assert (found.first.out_channels, found.head.in_channels) == (6, 24)


def test_windows_become_rows_and_come_back():
    def there_and_back(y):
        rows = F.unfold(y, (3, 2), padding=(1, 0))
        return F.fold(rows, y.shape[-2:], (3, 2), padding=(1, 0))

    found = smaller(Channels(there_and_back, 2), planes(2))
    assert (found.first.out_channels, found.head.in_channels) == (6, 6)


class Rows(nn.Module):
    """A Linear on the windows of channels."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(2, WIDTH, 1), nn.Linear(WIDTH * 6, 3)

    def forward(self, x):
        return self.head(F.unfold(self.first(x), (3, 2)).transpose(1, 2))


def test_windows_of_channels_are_read_by_a_layer():
    found = smaller(Rows(), planes(2))
    assert (found.first.out_channels, found.head.in_features) == (6, 36)


@pytest.mark.parametrize("function", [nn.ChannelShuffle(3), lambda y: F.channel_shuffle(y, 2)])
def test_shuffled_channels_go_at_the_same_place_of_each_group(function):
    found = smaller(Channels(function, 2), planes(2))
    assert (found.first.out_channels, found.head.in_channels) == (6, 6)


def test_channels_that_differ_in_space_are_not_shuffled():
    class Space(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(5, WIDTH), nn.LazyLinear(3)

        def forward(self, x):
            return self.head(F.pixel_shuffle(self.first(x).view(len(x), 4, -1, WIDTH), 2).flatten(1))

    with pytest.raises(SurgeryError, match=r"the shuffle at .* moves it in space"):
        smaller(Space(), [torch.randn(2, 8, 5).double()])
