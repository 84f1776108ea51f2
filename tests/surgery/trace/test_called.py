"""A recurrent layer is what calls PyTorch's `forward`, whatever stands around that call."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import SurgeryError
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

INPUTS, HIDDEN, CLASSES = 3, 7, 2
DEAD = (1, 4, 6)


def subclasses(kind):
    class OnlyOutput(kind):
        def forward(self, x):
            return super().forward(x)[0]

    class Squashed(kind):
        def forward(self, x):
            return torch.sigmoid(super().forward(x)[0])

    class Flipped(kind):
        def forward(self, x):
            return super().forward(x.flip(-1))[0].flip(-1)

    class Scaled(kind):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.scale = nn.Parameter(torch.rand(HIDDEN) + 0.5)

        def forward(self, x):
            return super().forward(input=x, hx=None)[0] * self.scale

    class Packing(kind):
        def forward(self, x, lengths=None):
            lengths = torch.full((x.size(0),), x.size(1)) if lengths is None else lengths
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=x.size(1))[0]

    class Normed(kind):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.norm = nn.LayerNorm(HIDDEN)

        def forward(self, x):
            return self.norm(super().forward(x)[0])

    class Complement(kind):
        def forward(self, x):
            return 1 - super().forward(x)[0]

    return {c.__name__: c for c in (OnlyOutput, Squashed, Flipped, Scaled, Packing, Normed, Complement)}


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.rnn = layer(INPUTS, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x))


def with_dead_units(model):
    """Units whose rows are 0 give 0 at every step, in every kind of layer."""
    gates = model.rnn.weight_hh_l0.size(0) // HIDDEN
    with torch.no_grad():
        for name, parameter in model.rnn.named_parameters():
            if name.startswith(("weight", "bias")):
                for gate in range(gates):
                    parameter[[gate * HIDDEN + unit for unit in DEAD]] = 0
    return model


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("around", ["OnlyOutput", "Squashed", "Flipped", "Scaled", "Packing", "Complement"])
def test_dead_units_leave_without_a_trace(kind, around):
    torch.manual_seed(0)
    model = with_dead_units(Net(subclasses(kind)[around]).double().eval())
    examples = [(torch.randn(2, 5, INPUTS).double(),), (torch.randn(3, 11, INPUTS).double(),)]
    before = copy.deepcopy(model)
    smaller = prune(model, {}, examples, names=["rnn"], amount=Amount(count=len(DEAD))).model
    assert smaller.rnn.hidden_size == HIDDEN - len(DEAD)
    assert type(smaller.rnn) is type(model.rnn)
    for x in (torch.randn(4, 9, INPUTS).double(), *(example[0] for example in examples)):
        assert torch.allclose(smaller(x), before(x), atol=1e-9, rtol=0)


def test_units_behind_a_layer_normalisation_leave_with_their_scale_and_shift():
    torch.manual_seed(0)
    model = Net(subclasses(nn.GRU)["Normed"]).double().eval()
    x = torch.randn(2, 5, INPUTS).double()
    smaller = prune(model, {}, [(x,)], names=["rnn"], amount=Amount(count=3)).model
    removed = [i for i, scale in enumerate(model.rnn.bias_hh_l0[:HIDDEN]) if scale not in smaller.rnn.bias_hh_l0]
    gates = [gate * HIDDEN + unit for gate in range(3) for unit in removed]
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter[gates if parameter.size(0) == 3 * HIDDEN else removed] = 0
    assert torch.allclose(smaller(x), model(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_layer_that_does_not_call_pytorch_is_no_recurrent_layer(kind):
    class Elsewhere(kind):
        def forward(self, x):
            return torch.tanh(nn.functional.linear(x, self.weight_ih_l0[:HIDDEN]))

    with pytest.raises(SurgeryError, match="`rnn` is not called in the model's forward pass"):
        prune(Net(Elsewhere).eval(), {}, [(torch.randn(2, 5, INPUTS),)], names=["rnn"], amount=Amount(count=2))


class Squeezed(nn.Module):
    """A stock layer, a sigmoid in the model, and consumers with and without a bias."""

    def __init__(self, consumer):
        super().__init__()
        self.rnn = nn.GRU(INPUTS, HIDDEN, batch_first=True)
        self.consumer = consumer

    def forward(self, x):
        y = torch.sigmoid(self.rnn(x)[0])
        if isinstance(self.consumer, nn.Conv1d):
            return self.consumer(y.mT).mT
        y = self.consumer(y)
        return y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize(
    "consumer",
    [nn.Linear(HIDDEN, CLASSES), nn.Conv1d(HIDDEN, 5, 3), nn.GRU(HIDDEN, 5, batch_first=True)],
    ids=["linear", "convolution", "recurrent"],
)
def test_a_bias_takes_up_what_a_sigmoid_makes_of_a_silent_unit(consumer):
    torch.manual_seed(0)
    model = with_dead_units(Squeezed(copy.deepcopy(consumer)).double().eval())
    x = torch.randn(2, 5, INPUTS).double()
    before = model(x)
    smaller = prune(model, {}, [(x,)], names=["rnn"], amount=Amount(count=len(DEAD))).model
    assert torch.allclose(smaller(x), before, atol=1e-9, rtol=0)


def test_without_a_bias_the_removal_is_refused_with_the_remedy():
    model = with_dead_units(Squeezed(nn.Linear(HIDDEN, CLASSES, bias=False)).eval())
    with pytest.raises(SurgeryError, match=r"`consumer.weight` reads 0.5 of units that are 0") as caught:
        prune(model, {}, [(torch.randn(2, 5, INPUTS),)], names=["rnn"], amount=Amount(count=2))
    assert "give that layer a bias of zeros" in caught.value.hint
