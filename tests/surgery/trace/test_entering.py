"""States among a model's inputs: reset by a mask, or only there to start from."""

from __future__ import annotations

import copy
import json

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.surgery.rebuild import rebuild
from compressor.surgery.trace.edges import narrowed_target
from compressor.surgery.units import gradient_scores
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from compressor.task.narrowed_states import NarrowedStates
from compressor.testing import RandomTask, check_file
from exporters.onnx import Options, export
from tests.tolerances import EXPORTED_FLOAT32

INPUT, HIDDEN, CLASSES = 3, 7, 2


class Streaming(nn.Module):
    """A state that is set back where `keep` is 0 before it is used, and given back."""

    def __init__(self, reset="product", layer=nn.GRU):
        super().__init__()
        self.rnn, self.head, self.reset = layer(INPUT, HIDDEN, batch_first=True), nn.Linear(HIDDEN, CLASSES), reset

    def forward(self, x, h, keep):
        keep = keep[None, :, None]
        h = {
            "product": lambda: keep * h,
            "where": lambda: torch.where(keep > 0.5, h, torch.zeros_like(h)),
            "fill": lambda: h.clone().masked_fill(keep < 0.5, 0.0),
            "row": lambda: h * keep * 0.5,
        }[self.reset]()
        y, h = self.rnn(x, h)
        return self.head(y), h


class Started(Streaming):
    """A state that only the first step sees: a speaker's vector, an encoder's last state."""

    def forward(self, x, h, keep):
        return super().forward(x, h, keep)[0]


def example(batch, length):
    return torch.randn(batch, length, INPUT), torch.randn(1, batch, HIDDEN), torch.randint(2, (batch,)).float()


def removed(model, count=3, scorer=None):
    torch.manual_seed(0)
    examples = [example(2, 3), example(3, 5)]
    return prune(model.eval(), {}, examples, names=["rnn"], amount=Amount(count=count), scorer=scorer)


@pytest.mark.parametrize("reset", ["product", "where", "fill", "row"])
def test_a_state_that_is_reset_is_followed_and_leaves_smaller(reset):
    model = removed(Streaming(reset)).model
    y, h = model(*example(2, 4))
    assert h.shape == (1, 2, HIDDEN - 3)
    assert y.shape == (2, 4, CLASSES)


def test_an_input_that_only_starts_a_state_keeps_its_size():
    done = removed(Started())
    x, h, keep = example(2, 4)
    [cut] = done.structure[-1]["inputs"].values()
    assert (cut["size"], len(cut["kept"]), cut["starts"]) == (HIDDEN, HIDDEN - 3, True)
    elsewhere = torch.ones(HIDDEN).index_fill(0, torch.tensor(cut["kept"]), 0.0)
    torch.testing.assert_close(done.model(x, h, keep), done.model(x, h + elsewhere, keep), rtol=0, atol=0)
    assert done.notes == (
        "<input 1> only starts a state and keeps its size, 7: the model reads 4 of its entries, and a file says which "
        "in a Gather",
    )
    task = NarrowedStates(RandomTask(AXES, SCORES, example), done.structure)
    assert task.example(2, 3)[1].shape == (1, 2, HIDDEN)


def check_rebuilt(model, structure, smaller):
    fresh = rebuild(model.eval(), structure)
    fresh.load_state_dict(smaller.state_dict())
    inputs = example(2, 4)
    torch.testing.assert_close(fresh(*inputs), smaller(*inputs), rtol=0, atol=0)


def test_a_rebuilt_model_takes_it_too():
    model = Started()
    done = removed(copy.deepcopy(model))
    check_rebuilt(model, done.structure, done.model)


def test_units_go_twice():
    first = removed(Started())
    second = removed(first.model, count=2)
    assert second.model.rnn.hidden_size == HIDDEN - 5
    check_rebuilt(Started(), (*first.structure, *second.structure), second.model)


def test_a_state_that_is_carried_on_shrinks_twice():
    first = removed(Streaming())
    second = removed(first.model, count=2)
    task = NarrowedStates(RandomTask(AXES, SCORES, example), (*first.structure, *second.structure))
    x, h, keep = task.example(2, 4)
    assert h.shape == second.model(x, h, keep)[1].shape == (1, 2, HIDDEN - 5)


def test_a_target_that_is_a_state_is_cut_like_the_state():
    done = removed(Streaming())
    outputs, wide = done.model(*example(2, 4)), torch.randn(1, 2, HIDDEN)
    target = narrowed_target(done.model, outputs, {"y": torch.zeros(2, 4, CLASSES), "h": wide, "other": torch.zeros(7)})
    [cut] = done.structure[-1]["outputs"].values()
    torch.testing.assert_close(target["h"], wide[..., cut["kept"]])
    assert (target["y"].shape, target["other"].shape) == ((2, 4, CLASSES), (7,))


def test_a_score_by_the_loss_takes_a_target_that_is_a_state():
    def loss(outputs, target):
        return (outputs[1] - target).square().mean()

    taylor = gradient_scores.taylor([(example(2, 4), torch.randn(1, 2, HIDDEN))], loss)
    assert removed(removed(Streaming()).model, count=2, scorer=taylor).model.rnn.hidden_size == HIDDEN - 5


AXES = {"x": {0: "batch", 1: "time"}, "h": {1: "batch"}, "keep": {0: "batch"}}
SCORES = {"scores": {0: "batch", 1: "time"}}


def test_the_file_takes_the_whole_input_and_gathers_from_it(tmp_path):
    model = removed(Started()).model
    task = RandomTask(AXES, SCORES, example, model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options()))
    assert {item.name: item.shape for item in artifact.inputs}["h"] == (1, "batch", HIDDEN)
    assert artifact.operators["Gather"] >= 1
    [entry] = onnx.load(tmp_path / "model.onnx").metadata_props
    kept = json.loads(entry.value)["h"]["entries"]
    assert (entry.key, len(kept)) == ("compressor.reads", HIDDEN - 3)
    check_file(tmp_path / "model.onnx", model, task, ((1, 1), (4, 13)), **EXPORTED_FLOAT32)
