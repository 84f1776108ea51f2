"""What the consumers of units are given, as rows of a regression."""

import pytest
import torch
from torch import nn

from compressor.surgery.refit import calibration
from compressor.surgery.refit.calibration import (
    Call,
    calls,
    consumed,
    evaluating,
    patches,
    produced,
    step_inputs,
    watching,
)

LAYERS = {
    "one axis": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 9)),
    "dilated": (nn.Conv1d(3, 4, 3, dilation=2), (3, 9)),
    "two axes": (nn.Conv2d(3, 4, (3, 2), stride=(1, 2), padding=(1, 0)), (3, 6, 7)),
    "reflected": (nn.Conv2d(3, 4, 3, padding=(2, 1), padding_mode="reflect"), (3, 5, 6)),
    "circular": (nn.Conv1d(3, 4, 3, padding=2, padding_mode="circular"), (3, 6)),
    "three axes": (nn.Conv3d(3, 4, 2), (3, 3, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_is_its_weight_times_patches(name):
    layer, shape = LAYERS[name]
    inputs = torch.randn(2, *shape)
    rows = torch.cat(list(patches(layer, Call({"input": inputs}))))
    expected = layer(inputs).movedim(1, -1).reshape(-1, 4)
    torch.testing.assert_close(rows @ layer.weight.flatten(1).t() + layer.bias, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_one_sample_without_a_batch_is_a_batch_of_one(name):
    layer, shape = LAYERS[name]
    sample = torch.randn(shape)
    alone, batch = (torch.cat(list(patches(layer, Call({"input": inputs})))) for inputs in (sample, sample[None]))
    assert torch.equal(alone, batch)


@pytest.mark.parametrize("name", LAYERS)
def test_patches_come_in_pieces_of_bounded_size_in_the_order_of_samples(name, monkeypatch):
    layer, x = LAYERS[name][0], torch.randn(5, *LAYERS[name][1])
    whole = torch.cat(list(patches(layer, Call({"input": x}))))
    monkeypatch.setattr(calibration, "_MOST_ELEMENTS", 2 * whole.numel() // len(x))
    pieces = list(patches(layer, Call({"input": x})))
    assert [len(piece) * len(x) // len(whole) for piece in pieces] == [2] * (len(x) // 2) + [1] * (len(x) % 2)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=0)
    monkeypatch.setattr(calibration, "_MOST_ELEMENTS", 1)
    assert len(list(patches(layer, Call({"input": x})))) == len(x)


@pytest.mark.parametrize("name", LAYERS)
def test_what_a_convolution_or_linear_layer_gives_has_one_row_a_position(name):
    layer, x = LAYERS[name][0], torch.randn(5, *LAYERS[name][1])
    wanted = layer(x).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(produced(layer, Call({"input": x})), wanted, rtol=0, atol=0)
    torch.testing.assert_close(produced(layer, Call({"input": x[0]})), wanted[: len(wanted) // len(x)])
    linear, rows = nn.Linear(5, 3), torch.randn(2, 7, 5)
    torch.testing.assert_close(produced(linear, Call({"input": rows})), linear(rows).flatten(0, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_a_convolution_consumes_its_channels_at_every_position(name):
    layer, x = LAYERS[name][0], torch.randn(5, *LAYERS[name][1])
    [(weight, samples)] = consumed(layer, Call({"input": x}))
    assert weight == "weight"
    torch.testing.assert_close(samples, x.movedim(1, -1).flatten(0, -2), rtol=0, atol=0)
    [(weight, samples)] = consumed(nn.Linear(5, 3), Call({"input": torch.ones(2, 7, 5)}))
    assert (weight, samples.shape) == ("weight", (14, 5))


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("batched", [True, False])
def test_a_cell_consumes_its_inputs_and_states_of_zeros_if_it_is_given_none(cell, batched):
    module, x, h = cell(5, 4), torch.randn(3, 5), torch.randn(3, 4)
    x, h = (x, h) if batched else (x[0], h[0])
    rows = (x.reshape(-1, 5), h.reshape(-1, 4))
    given = (h, torch.randn_like(h)) if cell is nn.LSTMCell else h
    for found, wanted in zip(step_inputs(module, Call({"input": x, "hx": given})), rows, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    inputs, states = step_inputs(module, Call({"input": x}))
    torch.testing.assert_close(inputs, rows[0], rtol=0, atol=0)
    assert torch.equal(states, torch.zeros_like(rows[1]))
    named = dict(consumed(module, Call({"input": x, "hx": given})))
    assert list(named) == ["weight_ih", "weight_hh"]
    torch.testing.assert_close(named["weight_hh"], rows[1], rtol=0, atol=0)


@pytest.mark.parametrize("projection", [0, 3])
def test_a_layer_consumes_inputs_states_before_each_step_and_what_it_projects(projection):
    layer, x = nn.LSTM(5, 4, batch_first=True, proj_size=projection), torch.randn(2, 6, 5)
    found = dict(consumed(layer, Call({"input": x})))
    outputs = layer(x)[0]
    before = torch.cat([torch.zeros_like(outputs[:, :1]), outputs[:, :-1]], 1)
    assert list(found) == ["weight_ih_l0", "weight_hh_l0", *(["weight_hr_l0"] if projection else [])]
    for name, wanted in (("weight_ih_l0", x), ("weight_hh_l0", before)):
        rows, flat = found[name], wanted.flatten(0, 1)
        torch.testing.assert_close(rows[rows[:, 0].argsort()], flat[flat[:, 0].argsort()])
    if projection:
        made = (found["weight_hr_l0"] @ layer.weight_hr_l0.T).detach()
        wanted = outputs.detach().flatten(0, 1)
        torch.testing.assert_close(made[made[:, 0].argsort()], wanted[wanted[:, 0].argsort()])


class Twice(nn.Module):
    """Calls a layer twice, and changes what it gave it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.dropout, self.ran = nn.Dropout(0.5), 0

    def forward(self, x):
        y = self.first(x)
        y.mul_(self.second(input=y).sum().sign() * 2)
        self.first(y).add_(1)
        self.ran += 1
        return self.dropout(y)


def test_calls_come_in_their_order_with_what_they_were_given_then():
    model, x = Twice(), torch.randn(2, 5)
    with evaluating(model):
        seen = calls(model, ["second", "first"], (x,))
        y = model.first(x)
    assert [name for name, _ in seen] == ["first", "second", "first"]
    assert [list(call.arguments) for _, call in seen] == [["input"]] * 3
    torch.testing.assert_close(seen[0][1].arguments["input"], x, rtol=0, atol=0)
    torch.testing.assert_close(seen[1][1].arguments["input"], y, rtol=0, atol=0)
    torch.testing.assert_close(seen[2][1].arguments["input"].abs(), 2 * y.abs(), rtol=0, atol=0)
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_a_run_ends_once_all_that_is_wanted_was_seen(most):
    model = Twice()
    with evaluating(model):
        assert len(calls(model, ["first", "second"], (torch.ones(2, 5),), most=most)) == min(most, 3)
    assert model.ran == (most > 3)


def test_modes_are_put_back_module_by_module_and_nothing_has_gradients_meanwhile():
    model, other = Twice(), nn.Linear(2, 2)
    model.second.eval()

    def fail():
        assert not any(module.training for part in (model, other) for module in part.modules())
        assert not model.first(torch.ones(1, 5)).requires_grad
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), evaluating(model, other):
        fail()
    assert [module.training for module in (model, model.first, model.second, other)] == [True, True, False, True]
    assert torch.is_grad_enabled()


class Around(nn.GRU):
    """A layer with a forward of its own around PyTorch's."""

    def forward(self, x):
        return super().forward(2 * x, torch.ones(1, len(x), 4))[0] + super().forward(x)[0]


def test_of_a_layer_with_a_forward_of_its_own_the_calls_of_pytorchs_are_seen():
    own, plain, x = Around(5, 4, batch_first=True), nn.GRU(5, 4, batch_first=True), torch.ones(3, 6, 5)
    model = nn.ModuleDict({"own": own, "plain": plain})
    model.forward = lambda x: (own(x), plain(x))
    original, seen = nn.GRU.forward, []
    with watching(model, ["own"], lambda name, call: seen.append((name, call.arguments))):
        model(x)
    assert nn.GRU.forward is original
    assert [(name, list(arguments)) for name, arguments in seen] == [("own", ["input", "hx"]), ("own", ["input"])]
    torch.testing.assert_close(seen[0][1]["input"], 2 * x, rtol=0, atol=0)
    torch.testing.assert_close(seen[0][1]["hx"], torch.ones(1, 3, 4), rtol=0, atol=0)
    torch.testing.assert_close(seen[1][1]["input"], x, rtol=0, atol=0)
