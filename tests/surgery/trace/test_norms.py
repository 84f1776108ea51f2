"""Normalisations over units: removed ones count on as zeros in their statistics."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from tests.surgery.trace.chains import WIDTH, Channels, Features, planes, sequences, smaller


def drawn(norm):
    """With weights and statistics that are no identity."""
    with torch.no_grad():
        for tensor in (*norm.parameters(), *norm.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.LayerNorm(WIDTH),
        lambda: nn.LayerNorm(WIDTH, eps=0.1, bias=False),
        lambda: nn.LayerNorm(WIDTH, elementwise_affine=False),
        lambda: nn.RMSNorm(WIDTH),
        lambda: nn.RMSNorm(WIDTH, eps=0.1, elementwise_affine=False),
    ],
)
def test_features_in_a_normalisation(norm):
    found = smaller(Features(drawn(norm())), sequences())
    assert (found.function.features, found.function.width, found.head.in_features) == (6, WIDTH, 6)
    parameters = [parameter.numel() for parameter in found.function.parameters()]
    assert parameters == [6] * len(parameters)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 3, WIDTH])
def test_channels_in_groups(axes, groups):
    found = smaller(Channels(drawn(nn.GroupNorm(groups, WIDTH)), axes), planes(axes))
    assert (found.first.out_channels, found.head.in_channels) == (6, 6)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"affine": True}, {"affine": True, "track_running_stats": True}], ids=str)
def test_channels_each_by_itself(axes, options):
    norm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[axes - 1]
    found = smaller(Channels(drawn(norm(WIDTH, **options)), axes), planes(axes))
    assert found.head.in_channels == 6


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_channels_of_a_batch_normalisation(axes):
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
    found = smaller(Channels(drawn(norm(WIDTH)), axes), planes(axes))
    assert (found.function.num_features, found.head.in_channels) == (6, 6)


def test_a_second_removal_keeps_the_first_width():
    once = smaller(Features(drawn(nn.LayerNorm(WIDTH))), sequences())
    twice = smaller(once, sequences())
    assert (twice.function.features, twice.function.width) == (3, WIDTH)


def test_a_normalisation_over_steps_and_features_is_refused():
    with pytest.raises(SurgeryError, match="`function` normalises over several axes"):
        smaller(Features(nn.LayerNorm((6, WIDTH))), sequences())


def test_features_beside_fixed_ones_are_normalised_together():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.head = (
                nn.Linear(5, WIDTH),
                drawn(nn.LayerNorm(WIDTH + 5)),
                nn.Linear(WIDTH + 5, 3),
            )

        def forward(self, x):
            return self.head(self.norm(torch.cat([x, self.first(x)], -1)))

    found = smaller(Beside(), sequences())
    assert (found.norm.features, found.norm.width, found.head.in_features) == (11, WIDTH + 5, 11)


def test_one_sample_without_a_batch_is_refused():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.head = nn.Conv1d(2, WIDTH, 1), nn.InstanceNorm1d(WIDTH), nn.Conv1d(WIDTH, 3, 1)

        def forward(self, x):
            return self.head(self.norm(self.first(x[0])))

    with pytest.raises(SurgeryError, match="`norm` is given one sample without a batch"):
        smaller(Single(), planes(1))
