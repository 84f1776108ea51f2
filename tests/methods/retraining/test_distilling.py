from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.retrain import Retrain
from tests.methods.conftest import (
    SignTask,
    Tagger,
    make_context,
    weights,
)


def test_distillation_alone_never_asks_for_labels_and_reaches_the_teacher(model, task):
    torch.manual_seed(1)
    student, (x,) = Tagger(), next(iter(SignTask().batches(torch.Generator())))[0]
    method = Retrain(epochs=20, lr=0.02, distill=True, distill_weight=1.0, distill_loss="mse")
    trained = method.apply(State(student.eval()), make_context(model, task)).state.model
    with torch.no_grad():
        distances = [nn.functional.mse_loss(net(x), model(x)).item() for net in (student, trained)]
    assert task.losses_taken == 0
    assert distances[1] < 0.2 * distances[0]


def test_hidden_states_of_a_smaller_model_are_distilled_and_the_map_is_thrown_away(model, task):
    student = Tagger(hidden=3)
    method = Retrain(distill=True, distill_hidden=("rnn",))
    trained = method.apply(State(student), make_context(model, task)).state.model
    assert weights(trained).keys() == weights(student).keys()


def test_an_unknown_hidden_module_is_refused_with_the_nearest_name(model):
    with pytest.raises(MethodError) as caught:
        Retrain(distill=True, distill_hidden=("rn",)).check(model)
    assert caught.value.message == "`distill_hidden`: the model has no module `rn`"
    assert caught.value.hint == "did you mean `rnn`?"
