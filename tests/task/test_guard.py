"""A user's task as the tool sees it: flat tensors, found axes, errors that name the file and the remedy."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compressor import Call, Evaluation, Task
from compressor.errors import TaskError
from compressor.task.guard import GuardedTask
from compressor.task.loading import load
from tests.task.conftest import BODY

CHANNELS, HIDDEN, CLASSES = 3, 5, 2
Result = namedtuple("Result", ["scores", "state"])


@dataclass
class Output:
    logits: torch.Tensor
    state: tuple | None = None


class Tagger(nn.Module):
    """Everything that a flat signature has not: a keyword, a nested state, a dataclass."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(CHANNELS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x, state=None, *, mask):
        y, state = self.rnn(x * mask[..., None], state)
        return Output(self.head(y), state)


class Tagging(Task):
    length, min_length, max_length = 8, 2, 16

    def model(self):
        torch.manual_seed(0)
        return Tagger()

    def example(self, batch, length):
        return Call(torch.randn(batch, length, CHANNELS), mask=torch.ones(batch, length))

    def batches(self, generator):
        for _ in range(3):
            call = self.example(4, 6)
            yield call, torch.zeros(4, 6, dtype=torch.long)

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs.logits.flatten(0, 1), target.flatten())

    def evaluate(self, forward):
        outputs = forward(torch.ones(7, 5, CHANNELS), mask=torch.ones(7, 5))
        assert outputs.state[0].shape == (1, 7, HIDDEN)
        return Evaluation(per_sample=outputs.logits.argmax(-1).float().mean(1))


def guarded(**changes):
    return GuardedTask(type("Changed", (Tagging,), changes)(), __file__)


def test_names_and_axes_are_found():
    task = guarded()
    assert task.inputs == {"x": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}}
    assert task.outputs == {"logits": {0: "batch", 1: "time"}, "state.0": {1: "batch"}, "state.1": {1: "batch"}}


def test_model_example_loss_and_evaluation_meet_in_flat_tensors():
    task = guarded()
    model = task.model()
    inputs, target = next(iter(task.batches(torch.Generator())))
    outputs = model(*inputs)
    assert [tuple(part.shape) for part in outputs] == [(4, 6, CLASSES), (1, 4, HIDDEN), (1, 4, HIDDEN)]
    task.loss(outputs, target).backward()
    assert model.rnn.weight_hh_l0.grad.abs().sum() > 0
    assert task.evaluate(model).per_sample.shape == (7,)


def test_declared_names_win_and_open_axes_of_outputs_are_added():
    task = guarded(
        inputs={"features": {0: "batch", 1: "time"}, "valid": {0: "batch", 1: "time"}},
        outputs={"scores": {0: "batch"}, "h": {}, "c": {}},
    )
    assert list(task.inputs) == ["features", "valid"]
    assert task.outputs["scores"] == {0: "batch", 1: "time"}
    assert task.outputs["h"] == {1: "batch"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"outputs": {"scores": {0: "time", 1: "batch"}, "h": {}, "c": {}}},
            r"`outputs` calls axis 0 of `scores` `time`, but at lengths 8 and 4 .* \(2, 8, 2\) and \(2, 4, 2\)",
        ),
        ({"outputs": {"scores": {}}}, "`outputs` names 1 tensors, but there are 3: logits, state.0, state.1"),
        ({"inputs": {"x": {4: "batch"}, "mask": {}}}, "`inputs` names axis 4 of `x`, which has 3 axes"),
        (
            {
                "inputs": {"x": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}},
                "example": lambda self, batch, length: Call(torch.ones(batch, 8, CHANNELS), mask=torch.ones(batch, 8)),
            },
            "`inputs` calls axis 1 of `x` `time`, but at lengths 8 and 4",
        ),
        ({"example": lambda self, batch, length: torch.ones(batch, length, CHANNELS)}, r"missing a required.* 'mask'"),
        (
            {"example": lambda self, batch, length: Call(torch.ones(batch, length, 4), mask=torch.ones(batch, length))},
            r"the model does not run on `example\(2, 8\)` of shapes \(2, 8, 4\), \(2, 8\)",
        ),
        ({"example": lambda self, batch, length: 1 / 0}, "`example` of Changed raised ZeroDivisionError"),
        ({"model": lambda self: "net"}, r"`model` must give a torch.nn.Module, not str"),
        ({"model": lambda self: nn.LazyLinear(3)}, "has parameters without a size: `weight`, `bias`"),
        ({"model": lambda self: nn.Linear(3, 3, device="meta")}, "without values"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(changes, message):
    with pytest.raises(TaskError, match=message) as caught:
        guarded(**changes).inputs  # noqa: B018
    assert caught.value.place.file == __file__


def test_a_model_made_in_inference_mode_is_refused():
    def model(self):
        with torch.inference_mode():
            return Tagger()

    with pytest.raises(TaskError, match="made in inference mode"):
        guarded(model=model).model()


def test_buffers_may_hold_infinities_and_parameters_may_not():
    class Masked(Tagger):
        def __init__(self):
            super().__init__()
            self.register_buffer("causal", torch.full((4, 4), -torch.inf).triu(1))

    assert guarded(model=lambda self: Masked()).model().causal.isinf().any()
    broken = Tagger()
    broken.head.bias.data[0] = torch.nan
    with pytest.raises(TaskError, match=r"not finite: `head.bias`"):
        guarded(model=lambda self: broken).model()


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(CHANNELS, HIDDEN, batch_first=True)

    def forward(self, x, lengths=None):
        y = self.rnn(x)[0]
        return y if lengths is None else y * (lengths[:, None, None] > 1)


class PlainTask(Tagging):
    def model(self):
        return Plain()

    def example(self, batch, length):
        return torch.randn(batch, length, CHANNELS)

    def loss(self, outputs, target):
        return (outputs.mean(1).sum(1) - target).square().mean()

    def evaluate(self, forward):
        return float(forward(torch.ones(2, 3, CHANNELS)).sum())


def plain_task(batches, **changes):
    changes["batches"] = lambda self, generator: batches
    return GuardedTask(type("Changed", (PlainTask,), changes)(), __file__)


X, Y = np.ones((4, 6, CHANNELS), np.float32), np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("batch", "changes"),
    [
        ((X, Y), {}),
        ([X, Y], {}),
        (((X,), Y), {}),
        ([[X], torch.ones(4)], {}),
        (({"x": X}, Y), {}),
        ({"x": X, "labels": Y}, {"target": "labels"}),
        ((X, Y, "file name"), {"batch_parts": ("input", "target", "ignore")}),
    ],
)
def test_batches_of_any_form_become_tensors_and_a_target(batch, changes):
    task = plain_task([batch], **changes)
    model = task.model()
    (inputs, target), *_ = task.batches(torch.Generator())
    assert len(task.batches(torch.Generator())) == 1
    assert task.loss(model(*inputs), target).ndim == 0


def test_a_data_loader_will_do():
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=2)
    task = plain_task(loader)
    assert [tuple(inputs[0].shape) for inputs, _ in task.batches(torch.Generator())] == [(2, 6, CHANNELS)] * 2


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, Y, Y), "gives 3 elements, not the pair"),
        ({"x": X, "labels": Y}, "does not say which entry is the target"),
        (X, "not a ndarray"),
        ((({"x": X},), Y), "called in another way than with `example`"),
        (((X, Y), Y), "it hands over `lengths`, which `example` does not"),
    ],
)
def test_batches_that_cannot_be_understood_say_what_to_write(batch, message):
    task = plain_task([batch])
    with pytest.raises(TaskError, match=message) as caught:
        list(task.batches(torch.Generator()))
    assert caught.value.hint


def test_computed_weights_are_folded_and_said():
    def model(self):
        tagger = Tagger()
        nn.utils.parametrizations.weight_norm(tagger.head)
        nn.utils.prune.l1_unstructured(tagger.rnn, "weight_hh_l0", 0.5)
        return tagger

    task = guarded(model=model)
    assert "head.weight" in dict(task.model().named_parameters())
    assert any("folded into plain weights: head.weight" in note for note in task.notes)
    assert list(task.masks) == ["rnn.weight_hh_l0"]


def test_what_a_function_of_the_task_raises_names_its_line(write):
    task = load(write(BODY.replace("return 0.5", "return 1 / 0")))
    with pytest.raises(TaskError) as caught:
        task.evaluate(lambda x: x)
    assert "`evaluate` of Tiny raised ZeroDivisionError: division by zero\n --> task.py:15" in caught.value.render()


@pytest.mark.parametrize(
    ("old", "new", "call", "message"),
    [
        ("return torch.nn.Linear(3, 2)", "return 3", "model", "must give a torch.nn.Module, not int"),
        ("return (torch.zeros(batch, length, 3),)", "return [1]", "model", "gives no tensor"),
        (
            "return (torch.zeros(batch, length, 3),)",
            "return (torch.zeros(1),) * 2",
            "model",
            "too many positional arguments",
        ),
    ],
)
def test_a_function_that_gives_the_wrong_thing_is_refused(write, old, new, call, message):
    task = load(write(BODY.replace(old, new)))
    with pytest.raises(TaskError, match=message):
        task.model() if call == "model" else task.example(2, 3)


def test_batches_that_are_no_pairs_are_refused(write):
    task = load(write(BODY.replace("yield (torch.zeros(2, 5, 3),), torch.zeros(2)", "yield torch.zeros(2, 5, 3)")))
    with pytest.raises(TaskError, match="must give pairs"):
        list(task.batches(torch.Generator()))


def test_lengths_out_of_order_are_refused(write):
    with pytest.raises(TaskError, match="needs 1 <= min_length <= length <= max_length, not 9, 5, 20"):
        load(
            write(
                BODY.replace(
                    "class Tiny(Task):", "class Tiny(Task):\n        min_length, length, max_length = 9, 5, 20"
                )
            )
        )


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("torch.zeros(2, 5, 4)", "of size 4 along axis 2, `example` of size 3"),
        ("torch.zeros(2, 0, 3)", r"of shape \(2, 0, 3\), which holds nothing"),
        ("torch.zeros(2, 5, 3) / 0", "with values that are not finite"),
        ("torch.zeros(2, 5, 3).int()", "in int32, `example` in float32"),
        ("torch.zeros(5, 3)", "with 2 axes, `example` with 3"),
    ],
)
def test_a_later_batch_unlike_the_example_is_refused_with_its_number_and_line(write, part, message):
    good = "yield (torch.zeros(2, 5, 3),), torch.zeros(2)"
    task = load(write(BODY.replace(good, f"{good}\n            {good}\n            yield ({part},), torch.zeros(2)")))
    task.model()
    with pytest.raises(TaskError, match=rf"^error: batch 3 of `batches` gives `input` {message}") as caught:
        list(task.batches(torch.Generator()))
    assert caught.value.place.source == f"yield ({part},), torch.zeros(2)"


def test_batches_of_other_open_sizes_are_taken(write):
    good = "yield (torch.zeros(2, 5, 3),), torch.zeros(2)"
    task = load(write(BODY.replace(good, f"{good}\n            yield (torch.ones(7, 11, 3),), torch.zeros(7)")))
    task.model()
    assert [inputs[0].shape[:2] for inputs, _ in task.batches(torch.Generator())] == [(2, 5), (7, 11)]
