"""The outputs of an LSTM's projection are units too."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

INPUTS, HIDDEN, OUTPUTS = 3, 11, 5


class Residual(nn.Module):
    """A projected LSTM of several layers and directions; with `tied` its output is added to that of a Linear."""

    def __init__(self, *, tied, **options):
        super().__init__()
        self.rnn = nn.LSTM(INPUTS, HIDDEN, batch_first=True, proj_size=OUTPUTS, **options)
        width = OUTPUTS * (2 if self.rnn.bidirectional else 1)
        self.beside, self.head = nn.Linear(INPUTS, width) if tied else None, nn.Linear(width, 2)

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.head(y if self.beside is None else y + self.beside(x))


def dead(model):
    """Outputs 1 and 3 of every projection give 0, in every layer and direction, and beside them too."""
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if "weight_hr" in name:
                parameter[[1, 3]] = 0.0
        if model.beside is not None:
            rows = [row + start for start in range(0, model.beside.out_features, OUTPUTS) for row in (1, 3)]
            model.beside.weight[rows], model.beside.bias[rows] = 0.0, 0.0
    return model


def score(model, trace):
    scores = np.ones(trace.atoms.count)
    scores[trace.atoms.roots(trace.atoms.axes["rnn.weight_hr_l0", 0][[1, 3]])] = 0
    return scores


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}], ids=str
)
def test_dead_outputs_leave_all_layers_and_directions(tied, options):
    torch.manual_seed(0)
    model = dead(Residual(tied=tied, **options).double().eval())
    before, x = copy.deepcopy(model), torch.randn(2, 7, INPUTS, dtype=torch.float64)
    done = prune(model, {}, [(x,)], names=["rnn"], amount=Amount(below=0.5), scorer=score)
    assert (done.model.rnn.proj_size, done.model.rnn.hidden_size) == (OUTPUTS - 2, HIDDEN)
    torch.testing.assert_close(done.model(x[:, :4]), before(x[:, :4]), atol=1e-9, rtol=0)


def test_a_ratio_is_taken_of_cells_and_outputs_and_outputs_that_must_stay_are_told():
    torch.manual_seed(0)
    x = torch.randn(2, 7, INPUTS)
    smaller = prune(Residual(tied=False, num_layers=2).eval(), {}, [(x,)], names=["rnn"], amount=Amount(ratio=0.5))
    assert (smaller.model.rnn.hidden_size, smaller.model.rnn.proj_size) == (6, 3)
    bare = Residual(tied=False).eval()
    bare.head = nn.Identity()
    stays = prune(bare, {}, [(x,)], names=["rnn"], amount=Amount(ratio=0.5))
    assert (stays.model.rnn.hidden_size, stays.model.rnn.proj_size) == (6, OUTPUTS)
    assert stays.skipped[0].reason.startswith("it is part of the model's output 0")
