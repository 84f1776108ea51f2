"""What is wrong with a task is found before any work, and called by its cause."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import Task
from compressor.errors import TaskError
from compressor.pipeline.dry_run import try_out
from compressor.pipeline.trial import evaluation
from compressor.task.guard import GuardedTask

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 5, batch_first=True)
        self.register_buffer("seen", torch.zeros(1))
        self.cache = None

    def forward(self, x):
        return self.rnn(x)[0]


class Good(Task):
    length, min_length, max_length = 6, 1, 12
    network = Net

    def model(self):
        return self.network()

    def example(self, batch, length):
        return torch.randn(batch, length, 3)

    def batches(self, generator):
        for _ in range(2):
            yield torch.randn(4, 5, 3, generator=generator), torch.zeros(4)

    def loss(self, outputs, target):
        return (outputs.mean((1, 2)) - target).square().mean()

    def evaluate(self, forward):
        generator = torch.Generator().manual_seed(1)
        return sum(float(forward(torch.randn(2, 4, 3, generator=generator)).sum()) for _ in range(5))


def tried(needs_loss=False, **changes):
    task = GuardedTask(type("Changed", (Good,), changes)(), __file__)
    try_out(task, task.model(), CPU, needs_loss=needs_loss)


class Noisy(Net):
    def forward(self, x):
        return super().forward(x + torch.randn_like(x))


class ForgottenDropout(Net):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)


class Counting(Net):
    def forward(self, x):
        self.seen += 1
        return super().forward(x) + self.seen


class Remembering(Net):
    def forward(self, x):
        y, self.cache = self.rnn(x, None if self.cache is None else self.cache[:, : x.size(0)])
        return y


class Undefined(Net):
    def forward(self, x):
        return super().forward(x) / 0 * 0


def test_a_good_task_passes_and_its_model_stays_as_it_is():
    task = GuardedTask(Good(), __file__)
    model = task.model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try_out(task, model, CPU)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Noisy, "it draws random numbers in evaluation mode"),
        (ForgottenDropout, "it draws random numbers in evaluation mode"),
        (Counting, "keeps a state in `seen`"),
        (Remembering, "keeps a state in `cache`"),
        (Undefined, "gives NaN in `output`"),
    ],
)
def test_a_model_that_no_file_could_agree_with_is_refused(network, message):
    with pytest.raises(TaskError, match=message):
        tried(network=network)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.full((4, 5, 3), torch.nan), "with values that are not finite"),
        (torch.full((4, 5, 3), torch.inf), "with values that are not finite"),
        (torch.ones(4, 5, 3, dtype=torch.int64), "in int64, `example` in float32"),
        (torch.ones(4, 5, 3).double(), "in float64, `example` in float32"),
        (torch.ones(4, 5, 7), "of size 7 along axis 2, `example` of size 3"),
        (torch.ones(4, 0, 3), "which holds nothing"),
        (torch.ones(5, 3), "with 2 axes, `example` with 3"),
    ],
)
def test_batches_unlike_the_example_are_refused(inputs, message):
    with pytest.raises(TaskError, match=f"the first of `batches` gives `x` .*{message}"):
        tried(batches=lambda self, generator: [(inputs, torch.zeros(4))])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda self, outputs, target: outputs.sum().detach(), "`loss` has no gradient"),
        (lambda self, outputs, target: float(outputs.sum()), "must give one number as a tensor, not float"),
        (lambda self, outputs, target: outputs.sum(1), "not a tensor of shape"),
        (lambda self, outputs, target: outputs.sum().to(torch.complex64), "`loss` gives complex64"),
        (lambda self, outputs, target: outputs.sum() * torch.nan, "`loss` gives nan on the first batch"),
        (lambda self, outputs, target: outputs.no_such_name, "`loss` of Changed raised AttributeError"),
    ],
)
def test_a_loss_that_cannot_train_is_refused(loss, message):
    with pytest.raises(TaskError, match=message):
        tried(loss=loss)


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda self, forward: 0.9, "`evaluate` never calls `forward`"),
        (lambda self, forward: float(forward(torch.randn(2, 4, 3)).sum()), "with other inputs each time"),
        (lambda self, forward: forward(torch.ones(2, 4, 3)).no_such_name, "`evaluate` of Changed raised"),
    ],
)
def test_an_evaluation_that_measures_nothing_is_refused(evaluate, message):
    with pytest.raises(TaskError, match=message):
        tried(evaluate=evaluate)


def test_no_batch_at_all_is_said():
    with pytest.raises(TaskError, match="`batches` gives no batch"):
        tried(batches=lambda self, generator: [])


def test_an_evaluation_of_many_calls_is_only_begun(monkeypatch):
    monkeypatch.setattr(evaluation, "SECONDS", 0.0)
    calls = []

    def evaluate(self, forward):
        for _ in range(1000):
            calls.append(forward(torch.ones(1, 2, 3)))
        return 0.0

    tried(evaluate=evaluate)
    assert len(calls) == 3  # two, and one of the two that were compared with them


def test_a_task_may_say_that_it_has_no_loss_or_batches():
    asked = []

    def missing(name):
        def function(self, *arguments):
            asked.append(name)
            raise NotImplementedError

        return function

    for name in ("loss", "batches"):
        tried(**{name: missing(name)})
        with pytest.raises(TaskError, match=f"`{name}` of Changed raised NotImplementedError"):
            tried(needs_loss=True, **{name: missing(name)})
    assert set(asked) == {"loss", "batches"}
