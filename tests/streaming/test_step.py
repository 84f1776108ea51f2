"""Step by step a model gives what it gives on the whole sequence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.streaming.step import StepModel
from tests.streaming.models import BATCH, LENGTH, MODELS, WIDTH, Layer, example, surveyed
from tests.tolerances import SAME_FLOAT64


@pytest.mark.parametrize(("chunk", "plain"), [(1, True), (4, True), (4, False)])
@pytest.mark.parametrize("name", MODELS)
def test_chained_steps_give_what_the_whole_sequence_gives(name, chunk, plain):
    model = MODELS[name]().double().eval()
    step = StepModel(model, surveyed(model), chunk=chunk, plain=plain)
    (x,) = example(BATCH, 3 * chunk)
    states, outputs = step.initial_states(BATCH), []
    with torch.no_grad():
        for part in x.split(chunk, 1):
            output, *states = step(part, *states)
            outputs.append(output)
        torch.testing.assert_close(torch.cat(outputs, 1), model(x), **SAME_FLOAT64)


def test_layers_of_other_models_and_of_later_calls_work_as_always():
    model, other = Layer(nn.GRU(WIDTH, 7, batch_first=True)).double(), nn.GRU(WIDTH, 7, batch_first=True).double()
    x = torch.randn(BATCH, LENGTH, WIDTH).double()
    expected = other(x)[0]
    model.other = [other]  # not a part of the model, but called by it
    forward = model.forward
    model.forward = lambda given: forward(given) + 0 * model.other[0](x)[0].sum()
    assert [spec.name for spec in surveyed(model).states] == ["layer.h"]
    assert torch.equal(other(x)[0], expected)
