"""A task of several files: how each module is called is seen, what a file cannot do is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import Task
from compressor.errors import TaskError, UsageError
from compressor.task.fixed_axes import fixed
from compressor.task.forwards import TorchForward
from compressor.task.guard import GuardedTask
from compressor.task.submodule_tasks import SubmoduleTask, together

FEATURES, HIDDEN, SYMBOLS = 3, 4, 6
CPU = torch.device("cpu")


class Net(nn.Module):
    """A transducer: audio and symbols meet in a joiner; the predictor runs step by step."""

    def __init__(self):
        super().__init__()
        self.transcribe = nn.Linear(FEATURES, HIDDEN)
        self.parts = nn.ModuleDict({"predict": Predictor(), "join": nn.Linear(HIDDEN, SYMBOLS)})

    def forward(self, audio, symbols):
        state, predicted = torch.zeros(len(audio), HIDDEN), []
        for symbol in symbols.unbind(1):
            found = self.parts["predict"](symbol, state=state)
            state = found["state"]
            predicted.append(found["state"])
        sums = self.transcribe(audio)[:, :, None] + torch.stack(predicted, 1)[:, None]
        return self.parts["join"](sums.tanh())  # (B, T, U, S)


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell = nn.Embedding(SYMBOLS, HIDDEN), nn.GRUCell(HIDDEN, HIDDEN)

    def forward(self, symbol, state):
        return {"state": self.cell(self.embed(symbol), state)}


class Transducing(Task):
    length, max_length = 5, 20
    modules = {"transcribe": "transcribe", "predict": "parts.predict", "join": "parts.join"}

    def model(self):
        torch.manual_seed(0)
        return Net()

    def example(self, batch, length, symbols=3):
        return torch.randn(batch, length, FEATURES), torch.randint(SYMBOLS, (batch, symbols))

    def batches(self, generator):
        yield self.example(4, 6), None

    def loss(self, outputs, target):
        return outputs.mean()

    def evaluate(self, forward):
        torch.manual_seed(1)
        audio, symbols = self.example(2, 5)
        step = forward.predict(symbols[:, 0], torch.zeros(2, HIDDEN))["state"]
        alone = forward.join((forward.transcribe(audio) + step[:, None]).tanh())
        return float((alone - forward(audio, symbols)[:, :, 0]).abs().max())


def guarded(**changes):
    return GuardedTask(type("Changed", (Transducing,), changes)(), __file__)


def parts_of(task):
    model = task.model().eval()
    return {name: SubmoduleTask(task, model, name, part) for name, part in task.submodules.items()}


def test_axes_and_names_of_each_module_are_found():
    parts = parts_of(guarded())
    assert parts["transcribe"].inputs == {"input": {0: "batch", 1: "time"}}
    assert parts["predict"].inputs == {"symbol": {0: "batch"}, "state": {0: "batch"}}
    assert parts["predict"].outputs == {"state": {0: "batch"}}
    assert parts["join"].outputs == {"output": {0: "batch", 1: "time", 2: "symbols"}}
    assert [sorted(part.ranges) for part in parts.values()] == [[], [], ["symbols"]]


def test_examples_and_batches_of_a_module_are_what_the_model_hands_to_it():
    task = guarded()
    parts = parts_of(task)
    assert parts["join"].example(2, 7, symbols=4)[0].shape == (2, 7, 4, HIDDEN)
    symbol, state = parts["predict"].example(2, 7)
    assert symbol.shape == (2,)
    assert state.any()  # the last call: its state holds something
    given = [inputs for inputs, _ in parts["predict"].batches(torch.Generator())]
    assert len(given) == 3
    model = parts["predict"].model()
    assert torch.equal(model(*given[0]), given[1][1])


def test_evaluate_calls_modules_by_name_and_the_whole_runs_on_what_is_in_their_place():
    task = guarded()
    assert task.evaluate(TorchForward(task.model(), CPU)) < 1e-6
    parts = parts_of(task)
    same = {part: part.model() for part in parts.values()}
    assert task.evaluate(together(same)) < 1e-6
    calls = []
    broken = parts["join"].evaluate(lambda x: calls.append(x.shape) or torch.zeros(*x.shape[:-1], SYMBOLS))
    assert (broken, len(calls)) == (0.0, 2)


def test_a_size_that_one_module_does_not_have_may_be_fixed_for_all():
    parts = parts_of(guarded())
    assert fixed(parts["transcribe"], {"symbols": 2}).example(2, 7)[0].shape == (2, 7, FEATURES)
    assert fixed(parts["join"], {"symbols": 2}).example(2, 7)[0].shape == (2, 7, 2, HIDDEN)
    with pytest.raises(UsageError, match="`shapes` fixes `width`"):
        fixed(parts["join"], {"width": 2})


class Sometimes(Net):
    def forward(self, audio, symbols):
        first = self.parts["predict"](symbols[:, 0], torch.zeros(len(audio), HIDDEN))["state"]
        second = self.parts["predict"](symbols[:, 1], None)["state"]
        return self.parts["join"](self.transcribe(audio) + (first + second)[:, None])


class Reaching(Net):
    def forward(self, audio, symbols):
        embedded = self.parts["predict"].embed(symbols)
        return super().forward(audio, symbols) + embedded.mean()


class Outside(Net):
    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def forward(self, audio, symbols):
        return super().forward(audio, symbols) * self.scale + self.shift


class Idle(Net):
    def forward(self, audio, symbols):
        return self.parts["join"](self.transcribe(audio))


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (Sometimes, "`predict` is called in two ways", "zeros for a state that is not there yet"),
        (Reaching, "other than their call: 'file' object has no attribute 'embed'", "inside of one of the modules"),
        (Outside, "`scale` and 1 more belongs to none of the task's `modules`", "move it"),
        (Idle, "`forward` does not call `parts.predict`", "as they are trained"),
        (dict, "`model` must give a torch.nn.Module, not dict", "`modules` names those that become files"),
    ],
)
def test_what_cannot_become_files_is_refused(model, message, hint):
    with pytest.raises(TaskError, match=message) as error:
        guarded(model=lambda self: model()).model()
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("encoder", "`modules` must name modules of the model"),
        (("parts.join",), "`modules` cannot name a file 'parts.join' for 'parts.join'"),
        ({"all": "parts", "join": "parts.join"}, "`modules` names `parts.join` beside `parts`, which holds it"),
        ({"join": "parts.joint"}, "`modules` names `parts.joint`, which the model does not have"),
    ],
)
def test_names_that_cannot_be_are_refused(modules, message):
    with pytest.raises(TaskError, match=message):
        guarded(modules=modules).model()


def test_a_name_that_is_no_module_is_told_with_those_that_are():
    task = guarded(evaluate=lambda self, forward: forward.encode(1))
    model = task.model()
    with pytest.raises(TaskError, match="`forward` has no `encode`; the task's `modules` are `transcribe`, `predict`"):
        task.evaluate(TorchForward(model, CPU))
