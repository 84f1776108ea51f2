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


class WrittenOut(nn.Module):
    """Attention by hand, with numbers that are added to the scores, and 0 for what is not a number."""

    def __init__(self, added):
        super().__init__()
        self.enter, self.added = nn.Linear(5, 8), added

    def forward(self, x):
        scores = self.enter(x) @ self.enter(x).transpose(1, 2)
        bias = self.added(scores, (x[:, :, 0] > 0.0)[:, None])
        weights = (scores + bias).softmax(-1)
        return torch.where(weights.isnan(), 0.0, weights) @ x


@pytest.mark.parametrize(
    "added",
    [
        lambda _scores, masked: torch.where(masked, float("-inf"), 0.0),
        lambda scores, masked: torch.zeros_like(scores).masked_fill(masked, float("-inf")),
        lambda _scores, masked: torch.where(masked, 0.0, float("-inf")),
        lambda _scores, near: torch.where(near, 0.0, -2.0),
        lambda _scores, near: torch.where(near, 1.0, torch.finfo(torch.float32).min),
    ],
    ids=["what is masked first", "filled", "what is kept first", "a bias that masks nothing", "a bias of what is kept"],
)
def test_what_a_model_adds_by_itself_means_what_it_says(added, tmp_path):
    torch.manual_seed(0)
    built, path = WrittenOut(added).eval(), tmp_path / "model.onnx"
    task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), built)
    export(Job(built, task, path, Options(format="onnx")))
    check_file(path, built, task)
