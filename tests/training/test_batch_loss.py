"""What cannot be trained on is refused, and batches are moved whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.training.batch_loss import check_loss, to_device


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (0.5, "the task's loss is a float"),
        (torch.ones(3, requires_grad=True), r"the task's loss has shape \(3,\), but a scalar is needed"),
        (torch.tensor(1.0), "the task's loss does not depend on any trainable parameter"),
    ],
)
def test_a_loss_that_cannot_be_trained_on_is_refused(loss, message):
    with pytest.raises(MethodError, match=message):
        check_loss(loss)


def test_every_tensor_of_a_nested_target_is_moved():
    packed = nn.utils.rnn.pack_sequence([torch.zeros(2, 3)])
    moved = to_device({"a": [torch.zeros(2), (packed, 5)], "b": "text"}, torch.device("meta"))
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1][0].data.device.type == "meta"
    assert moved["a"][1][1] == 5
    assert moved["b"] == "text"
