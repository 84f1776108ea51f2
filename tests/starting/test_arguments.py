from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import TaskError
from compressor.progress import Silent
from compressor.starting.arguments import find


class ByName(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.out = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, *, features, temperature=1.0):
        return {"logits": self.out(torch.tanh(self.enter(features))) / temperature}


class Mixed(ByName):
    def forward(self, features, scale=1.0, *, mask):
        return self.out(torch.tanh(self.enter(features * mask))) * scale


def test_arguments_that_are_taken_by_name_only_are_given_by_name():
    for model, names in ((ByName(), {"features"}), (Mixed(), {"features", "mask"})):
        arguments = find(model.eval(), Silent())
        assert arguments.keywords
        assert set(arguments.texts) == names


class KeepsState(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.width = width
        self.enter, self.rnn = nn.Linear(5, 4), nn.GRU(4, 3, batch_first=True)
        self.hidden = torch.zeros(1, 1, 3)

    def forward(self, frames):
        steps = self.enter(frames.unfold(-1, self.width // 5, self.width // 5).mean(-1))
        outputs, self.hidden = self.rnn(steps, self.hidden)
        return outputs


class Decodes(ByName):
    def forward(self, features):
        return self.out(torch.tanh(self.enter(features))).argmax(-1).tolist()


def test_the_call_that_got_furthest_says_why_none_ran():
    with pytest.raises(TaskError, match=r"furthest, to `rnn`: RuntimeError: Expected hidden") as refused:
        find(KeepsState(60).eval(), Silent())
    assert "keeps `hidden` from call to call" in refused.value.hint


def test_a_model_that_gives_no_tensor_is_told_so_before_a_task_is_written():
    with pytest.raises(TaskError, match="to `out`: it gives no tensor, but a list") as refused:
        find(Decodes().eval(), Silent())
    assert "before decoding" in refused.value.hint


def test_a_width_that_no_layer_tells_is_one_that_the_model_was_given():
    class Fresh(KeepsState):
        def forward(self, frames):
            self.hidden = frames.new_zeros(1, len(frames), 3)
            return super().forward(frames)

    assert find(Fresh(60).eval(), Silent()).text == "torch.randn(batch, length, 60)"


class FromParameters(nn.Module):
    """A cell of plain parameters that is given what is missing as a number for each feature."""

    def __init__(self):
        super().__init__()
        self.w, self.u = nn.Parameter(torch.randn(7, 5)), nn.Parameter(torch.randn(7, 7))

    def forward(self, x, mask):
        h, outputs = x.new_zeros(len(x), 7), []
        for t in range(x.size(1)):
            h = torch.tanh((x[:, t] * mask[:, t] + (1 - mask[:, t])) @ self.w.t() + h @ self.u.t())
            outputs.append(h)
        return torch.stack(outputs, 1)


class Characters(nn.Module):
    """Words and the characters of each."""

    def __init__(self):
        super().__init__()
        self.word, self.char = nn.Embedding(31, 4), nn.Embedding(17, 4)

    def forward(self, words, chars):
        batch, length, size = chars.shape
        return self.word(words) + self.char(chars.view(batch * length, size)).mean(1).view(batch, length, -1)


@pytest.mark.parametrize(
    ("model", "texts"),
    [
        (FromParameters(), {"x": "torch.randn(batch, length, 5)", "mask": "torch.ones(batch, length, 5)"}),
        (
            Characters(),
            {"words": "torch.randint(31, (batch, length))", "chars": "torch.randint(17, (batch, length, 4))"},
        ),
    ],
)
def test_widths_of_own_parameters_and_indices_with_a_further_axis_are_tried(model, texts):
    assert find(model.eval(), Silent()).texts == texts


class Translates(nn.Module):
    """A target that attends to a source; where the target is padded is a third argument."""

    def __init__(self, masked):
        super().__init__()
        self.masked = masked
        self.source, self.target = nn.Embedding(11, 4), nn.Embedding(13, 4)

    def forward(self, source, target, target_mask=None):
        queries, keys = self.target(target), self.source(source)
        if self.masked:
            queries = queries * target_mask.unsqueeze(-1)
        return (queries @ keys.mT).softmax(-1) @ keys


class TranslatesMasked(Translates):
    def forward(self, source, target, target_mask):
        return super().forward(source, target, target_mask)


@pytest.mark.parametrize(("model", "count"), [(Translates(False), 1), (TranslatesMasked(True), 2)])
def test_a_target_has_a_length_of_its_own_and_what_goes_with_it_has_the_same(model, count):
    arguments = find(model.eval(), Silent())
    assert arguments.further == {"target_length": 16}
    assert sum("target_length" in text for text in arguments.texts.values()) == count
    assert "target_length" not in arguments.texts["source"]


class IgnoresWhatMasksNothing(Translates):
    def forward(self, source, source_mask):
        states = self.source(source)
        return states if source_mask.all() else states * source_mask.unsqueeze(-1)


def test_a_mask_alone_has_no_length_of_its_own():
    assert find(IgnoresWhatMasksNothing(True).eval(), Silent()).further == {}


def test_arguments_that_must_be_as_long_as_the_first_share_its_length():
    assert find(FromParameters().eval(), Silent()).further == {}
    assert find(Characters().eval(), Silent()).further == {}
