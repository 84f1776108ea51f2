"""Rows of an attention that are masked whole give 0, as in PyTorch, and no number is asked for its being one."""

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.formats import Job
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.surgery.speech import RowMasked

TIMED = {0: "batch", 1: "time"}


class Windowed(nn.Module):
    """A step sees the two in front of it that lie in its own half, if there are any; four heads."""

    def __init__(self):
        super().__init__()
        self.enter, self.head = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x):
        steps = torch.arange(x.size(1))
        apart = steps[:, None] - steps[None]
        mask = (apart > 0) & (apart < 3)
        heads = self.enter(x).unflatten(-1, (4, 4)).transpose(1, 2)
        y = functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
        return self.head(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("model", [RowMasked, Windowed])
@pytest.mark.parametrize("opset", [18, 23])
def test_a_row_that_is_masked_whole_gives_0(model, opset, tmp_path):
    torch.manual_seed(0)
    built, path = model().eval(), tmp_path / "model.onnx"
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), built)
    export(Job(built, task, path, Options(format="onnx", opset=opset)))
    check_file(path, built, task)
    assert "IsNaN" not in {node.op_type for node in onnx.load(path).graph.node}
