import sys

import numpy as np
import pytest
import torch
from onnx import helper

from compressor.errors import UsageError
from compressor.measure import memory

MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system does not tell the peak")


@pytest.fixture
def large(write):
    """The same call as `linear`, with 48 MiB of weights."""
    wide = 48 * MIB // 4 // 8
    weights = {"up": np.ones((5, wide), np.float32), "down": np.ones((wide, 3), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "up"], ["h"]), helper.make_node("MatMul", ["h", "down"], ["y"])]
    return write(nodes, {"x": ["batch", 5]}, {"y": ["batch", 3]}, weights, name="large")


def test_weights_and_intermediate_values_show_in_the_peak(linear, large):
    small, more = memory.peak(linear, [torch.zeros(1, 5)]), memory.peak(large, [torch.zeros(1, 5)])
    assert small is not None
    assert 0 < small < 40 * MIB
    assert more - small > 45 * MIB
    assert memory.peak(large, [torch.zeros(8, 5)]) - more > 30 * MIB  # h: 8 x 6 MiB


def test_inputs_that_do_not_fit_are_refused_before_a_process_starts(linear):
    with pytest.raises(UsageError, match="is fixed to 5"):
        memory.peak(linear, [torch.zeros(1, 7)])
