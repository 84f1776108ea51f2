"""A random task that the tool itself can use, and checks that find what is wrong."""

import pytest
import torch

from compressor.errors import ParityError, TaskError
from compressor.formats import Job
from compressor.measure import parity
from compressor.methods import Magnitude
from compressor.methods.base import Context, State
from compressor.progress import Silent
from compressor.testing import RandomTask, check_file, check_lossless, normal, silence_units, unseen_sizes
from exporters.onnx import Options, export
from tests.nets import Scores

TIMED = {0: "batch", 1: "time"}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Scores(5, 11, 3).eval()


def task_of(model=None, **options):
    return RandomTask({"x": TIMED}, {"y": TIMED}, normal(5), model, **options)


def test_the_models_own_outputs_score_1_and_others_less(model):
    task = task_of(model)
    assert torch.equal(task.evaluate(model), torch.ones(64))
    assert torch.allclose(task.evaluate(lambda x: 0.75 * model(x)), torch.full((64,), 0.75))
    assert torch.equal(task.evaluate(lambda x: -model(x)), torch.zeros(64))


def test_batches_follow_the_generator_and_their_loss_is_0_for_the_model_itself(model):
    task = task_of(model)
    first, again, other = (list(task.batches(torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert first[0][0][0].equal(again[0][0][0])
    assert not first[0][0][0].equal(other[0][0][0])
    ((x,), target) = first[0]
    assert task.loss(model(x), target) == 0.0
    assert task.loss(model(x) + 1.0, target) > 0.5


def test_the_global_generator_is_left_as_it_was(model):
    state = torch.random.get_rng_state()
    list(task_of(model).batches(torch.Generator()))
    task_of(model).evaluate(model)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_task_without_a_model_has_shapes_only():
    assert next(iter(task_of().batches(torch.Generator())))[1] is None
    with pytest.raises(TaskError, match="this random task has no model"):
        task_of().evaluate(lambda x: x)


def test_unseen_sizes_are_in_the_range_and_none_of_the_exporters():
    task = task_of(min_length=4, max_length=9)
    assert not set(unseen_sizes(task)) & set(parity.points(task))
    assert all(4 <= length <= 9 for _, length in unseen_sizes(task))
    assert unseen_sizes(task_of(length=3, min_length=3, max_length=3)) == ((7, 3), (4, 3), (6, 3))


def test_a_file_is_compared_with_its_model_and_another_model_is_found_out(model, tmp_path):
    path = tmp_path / "model.onnx"
    export(Job(model, task_of(), path, Options()))
    assert len(check_file(path, model, task_of()).points) == 3
    torch.manual_seed(1)
    with pytest.raises(ParityError, match=r"(?s)disagrees with PyTorch:.*max abs.*too large"):
        check_file(path, Scores(5, 11, 3).eval(), task_of(), sizes=[(2, 3)])


def test_silent_units_give_0_at_every_position(model):
    silence_units(model, 4)
    states = model.rnn(torch.randn(3, 7, 5))[0]
    assert (states == 0.0).all((0, 1)).sum() == 4


def removed(model, count):
    context = Context(task_of(model), model, torch.device("cpu"), torch.Generator(), Silent())
    return Magnitude(prune="units", count=count).apply(State(model), context).state.model


def test_a_removal_of_silent_units_is_lossless_and_of_others_is_found_out(model):
    assert check_lossless(lambda model: removed(model, 4), model, task_of(), count=4).rnn.hidden_size == 7
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check_lossless(lambda model: removed(model, 5), model, task_of(), count=4)


def test_a_removal_that_removes_nothing_is_found_out(model):
    with pytest.raises(AssertionError, match="nothing was removed: 630 parameters before, 630 after"):
        check_lossless(lambda model: model, model, task_of())
