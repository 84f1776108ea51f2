"""What the consumers of units are given, as rows of a regression."""

import pytest
import torch
from torch import nn

from compressor.surgery.refit.calibration import patches


class Given:
    """A call of a layer."""

    def __init__(self, inputs):
        self.arguments = {"input": inputs}


LAYERS = {
    "one axis": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 9)),
    "dilated": (nn.Conv1d(3, 4, 3, dilation=2), (3, 9)),
    "two axes": (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(1, 0)), (3, 6, 7)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"), (3, 5, 6)),
    "circular": (nn.Conv1d(3, 4, 3, padding=2, padding_mode="circular"), (3, 6)),
    "three axes": (nn.Conv3d(3, 4, 2), (3, 3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_is_its_weight_times_patches(name):
    layer, shape = LAYERS[name]
    inputs = torch.randn(2, *shape)
    rows = torch.cat(list(patches(layer, Given(inputs))))
    expected = layer(inputs).movedim(1, -1).reshape(-1, 4)
    torch.testing.assert_close(rows @ layer.weight.flatten(1).t() + layer.bias, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_one_sample_without_a_batch_is_a_batch_of_one(name):
    layer, shape = LAYERS[name]
    sample = torch.randn(shape)
    alone, batch = (torch.cat(list(patches(layer, Given(inputs)))) for inputs in (sample, sample[None]))
    assert torch.equal(alone, batch)
