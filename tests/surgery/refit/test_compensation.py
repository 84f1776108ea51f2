"""Consumers of removed units are refitted to what the original computes: against solving each regression directly."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.surgery.refit.compensation import refit
from tests.progress import Recorder

RIDGE = 0.05
KEPT = torch.tensor([1, 1, 0, 1, 0, 1, 1, 0, 1]).bool()
UNITS, SMALL = len(KEPT), int(KEPT.sum())


class Recurrent(nn.Module):
    """One recurrent layer and a head on every step."""

    def __init__(self, cell, units, **options):
        super().__init__()
        self.rnn = cell(4, units, batch_first=True, **options)
        self.head = nn.Linear(self.rnn.proj_size or units, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Loop(nn.Module):
    """A cell in a loop of the model's own."""

    def __init__(self, cell, units):
        super().__init__()
        self.cell = cell(4, units)
        self.head = nn.Linear(units, 3)

    def forward(self, x):
        state, outputs = None, []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(outputs, 1)


def _batches(*shapes, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(*shape, generator=generator, dtype=torch.float64),) for shape in shapes]


def _blocks(parameter, axis):
    """The mask of an axis that holds one or more blocks of units."""
    return KEPT.repeat(parameter.size(axis) // UNITS)


def _smaller(original, make, axes):
    """The model with units taken out by hand: `axes` are (parameter, axis) of the original."""
    kept = {(name, axis): _blocks(original.get_parameter(name), axis) for name, axis in axes}
    state = original.state_dict()
    for (name, axis), mask in kept.items():
        state[name] = state[name].index_select(axis, mask.nonzero().flatten())
    smaller = make(SMALL).double()
    smaller.load_state_dict(state)
    return smaller.eval(), kept


def _recurrent(kind, **options):
    torch.manual_seed(0)
    cell = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind]
    model = Recurrent(cell, UNITS, **options).double().eval()
    rows = [f"rnn.{name}" for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    axes = [(name, 0) for name in rows if name in dict(model.named_parameters())]
    axes += [("rnn.weight_hr_l0", 1)] if model.rnn.proj_size else [("rnn.weight_hh_l0", 1), ("head.weight", 1)]
    smaller, kept = _smaller(model, lambda units: Recurrent(cell, units, **options), axes)
    return model, smaller, kept


def _roles(kept):
    return {key: "in" if key[1] else "out" for key in kept}


def _regress(z, r):
    """The change of weights (m, n) and constant (m,), from the rows of the data themselves."""
    centred = z - z.mean(0)
    scale = (len(z) * RIDGE * centred.square().mean()).sqrt()
    rows = torch.cat([centred, scale * torch.eye(z.size(1), dtype=z.dtype)])
    targets = torch.cat([r - r.mean(0), torch.zeros(z.size(1), r.size(1), dtype=z.dtype)])
    change = torch.linalg.lstsq(rows, targets, driver="gelsd").solution.T
    return change, r.mean(0) - change @ z.mean(0)


def _previous(states):
    return torch.cat([torch.zeros_like(states[:, :1]), states[:, :-1]], 1)


def _joined(parts):
    return torch.cat([part.reshape(-1, part.size(-1)) for part in parts])


def _steps(model, batches):
    """Inputs x_t and states h_(t-1) and h_t of all steps (N, features)."""
    states = [model.rnn(x)[0] for (x,) in batches]
    return _joined([x for (x,) in batches]), _joined([_previous(part) for part in states]), _joined(states)


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
@torch.no_grad()
def test_all_gates_are_the_direct_solution(kind):
    model, smaller, kept = _recurrent(kind)
    batches = _batches((5, 6, 4), (3, 9, 4))
    inputs, before, states = _steps(model, batches)
    old = copy.deepcopy(smaller)
    refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE, turns=1)

    rows = _blocks(model.rnn.weight_hh_l0, 0)
    lost = before @ model.rnn.weight_hh_l0[rows].T - before[:, KEPT] @ old.rnn.weight_hh_l0.T
    change, constant = _regress(torch.cat([inputs, before[:, KEPT]], 1), lost)
    torch.testing.assert_close(smaller.rnn.weight_ih_l0, old.rnn.weight_ih_l0 + change[:, :4])
    torch.testing.assert_close(smaller.rnn.weight_hh_l0, old.rnn.weight_hh_l0 + change[:, 4:])
    torch.testing.assert_close(smaller.rnn.bias_ih_l0, old.rnn.bias_ih_l0 + constant)
    assert torch.equal(smaller.rnn.bias_hh_l0, old.rnn.bias_hh_l0)

    # The head is fitted to what the smaller layer gives by now.
    own = _joined([smaller.rnn(x)[0] for (x,) in batches])
    change, constant = _regress(own, states @ model.head.weight.T - own @ old.head.weight.T)
    torch.testing.assert_close(smaller.head.weight, old.head.weight + change)
    torch.testing.assert_close(smaller.head.bias, old.head.bias + constant)


@torch.no_grad()
def test_the_two_sums_of_a_new_gate_are_fitted_apart():
    model, smaller, kept = _recurrent("gru")
    batches = _batches((8, 7, 4))
    inputs, before, _ = _steps(model, batches)
    old = copy.deepcopy(smaller)
    refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE, turns=1)
    rows = _blocks(model.rnn.weight_hh_l0, 0)
    lost = before @ model.rnn.weight_hh_l0[rows].T - before[:, KEPT] @ old.rnn.weight_hh_l0.T
    gates, new = slice(0, 2 * SMALL), slice(2 * SMALL, 3 * SMALL)
    change, constant = _regress(torch.cat([inputs, before[:, KEPT]], 1), lost[:, gates])
    torch.testing.assert_close(smaller.rnn.weight_ih_l0[gates], old.rnn.weight_ih_l0[gates] + change[:, :4])
    torch.testing.assert_close(smaller.rnn.weight_hh_l0[gates], old.rnn.weight_hh_l0[gates] + change[:, 4:])
    torch.testing.assert_close(smaller.rnn.bias_ih_l0[gates], old.rnn.bias_ih_l0[gates] + constant)
    change, constant = _regress(before[:, KEPT], lost[:, new])
    torch.testing.assert_close(smaller.rnn.weight_hh_l0[new], old.rnn.weight_hh_l0[new] + change)
    torch.testing.assert_close(smaller.rnn.bias_hh_l0[new], old.rnn.bias_hh_l0[new] + constant)
    # The inputs lost nothing, so what is multiplied by them alone stays.
    torch.testing.assert_close(smaller.rnn.weight_ih_l0[new], old.rnn.weight_ih_l0[new], atol=1e-12, rtol=0)


@torch.no_grad()
def test_the_second_turn_adds_the_states_that_the_smaller_layer_came_to():
    model, smaller, kept = _recurrent("rnn")
    batches = _batches((5, 6, 4))
    inputs, before, _ = _steps(model, batches)
    old, first = copy.deepcopy(smaller), copy.deepcopy(smaller)
    refit(model, first, kept, _roles(kept), batches, ridge=RIDGE, turns=1)
    refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE, turns=2)
    own = _steps(first, batches)[1]
    wanted = before @ model.rnn.weight_hh_l0[KEPT].T
    z = torch.cat([torch.cat([inputs, state], 1) for state in (before[:, KEPT], own)])
    lost = torch.cat([wanted - state @ old.rnn.weight_hh_l0.T for state in (before[:, KEPT], own)])
    change, constant = _regress(z, lost)
    torch.testing.assert_close(smaller.rnn.weight_hh_l0, old.rnn.weight_hh_l0 + change[:, 4:])
    torch.testing.assert_close(smaller.rnn.bias_ih_l0, old.rnn.bias_ih_l0 + constant)


@pytest.mark.parametrize(("layer", "cell"), [(nn.RNN, nn.RNNCell), (nn.GRU, nn.GRUCell), (nn.LSTM, nn.LSTMCell)])
@pytest.mark.parametrize("turns", [1, 3])
@torch.no_grad()
def test_a_cell_in_a_loop_is_fitted_like_the_layer(layer, cell, turns):
    kind = layer.__name__.lower()
    model, smaller, kept = _recurrent(kind)
    torch.manual_seed(0)

    def looped(source, units):
        loop = Loop(cell, units).double().eval()
        loop.load_state_dict({
            name.replace("rnn.", "cell.").replace("_l0", ""): value for name, value in source.state_dict().items()
        })  # fmt: skip
        return loop

    loop, small_loop = looped(model, UNITS), looped(smaller, SMALL)
    renamed = {(name.replace("rnn.", "cell.").replace("_l0", ""), axis): mask for (name, axis), mask in kept.items()}
    batches = _batches((4, 6, 4), (3, 6, 4))
    refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE, turns=turns)
    refit(loop, small_loop, renamed, _roles(renamed), batches, ridge=RIDGE, turns=turns)
    for name, value in smaller.state_dict().items():
        found = small_loop.state_dict()[name.replace("rnn.", "cell.").replace("_l0", "")]
        torch.testing.assert_close(found, value, atol=1e-9, rtol=1e-7)


@torch.no_grad()
def test_a_projection_is_fitted_on_the_units_in_front_of_it():
    model, smaller, kept = _recurrent("lstm", proj_size=2)
    old = copy.deepcopy(smaller)
    batches = _batches((6, 8, 4))
    done = refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE)
    assert [fit.names for fit in done.refits] == [("rnn.weight_hr_l0",)]
    assert done.refits[0].error_after < done.refits[0].error_before
    assert not torch.equal(smaller.rnn.weight_hr_l0, old.rnn.weight_hr_l0)
    (x,) = batches[0]
    wanted = model.rnn(x)[0]
    assert (smaller.rnn(x)[0] - wanted).square().mean() < (old.rnn(x)[0] - wanted).square().mean()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (2, 3), "stride": (1, 2), "dilation": (2, 1)},
        {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular"},
        {"kernel_size": 3, "padding": "same", "bias": False},
    ],
)
@torch.no_grad()
def test_a_convolution_is_the_direct_solution(options):
    torch.manual_seed(0)

    def make(channels):
        return nn.Sequential(nn.Conv2d(2, channels, 1), nn.Tanh(), nn.Conv2d(channels, 3, **options))

    model = make(UNITS).double().eval()
    smaller, kept = _smaller(model, make, [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)])
    old = copy.deepcopy(smaller)
    batches = _batches((3, 2, 7, 8), (2, 2, 6, 9))
    refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE)

    # Each output position from the patch under it: convolve with one-hot kernels.
    second = old[2]
    patch = nn.Conv2d(SMALL, SMALL * second.weight[0, 0].numel(), **(options | {"bias": False})).double()
    size = second.weight[0].numel()
    patch.weight.copy_(torch.eye(size, dtype=torch.float64).view(size, *second.weight.shape[1:]))
    z = _joined([patch(old[:2](x)).movedim(1, -1) for (x,) in batches])
    wanted = _joined([(model(x) - old(x)).movedim(1, -1) for (x,) in batches])
    if second.bias is None:
        scale = (len(z) * RIDGE * z.square().mean()).sqrt()
        rows = torch.cat([z, scale * torch.eye(size, dtype=z.dtype)])
        targets = torch.cat([wanted, torch.zeros(size, 3, dtype=z.dtype)])
        change = torch.linalg.lstsq(rows, targets, driver="gelsd").solution.T
    else:
        change, constant = _regress(z, wanted)
        torch.testing.assert_close(smaller[2].bias, old[2].bias + constant)
    torch.testing.assert_close(smaller[2].weight.flatten(1), old[2].weight.flatten(1) + change)


class PackedInside(Recurrent):
    """Packs its inputs by lengths."""

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_what_lies_past_the_end_of_a_packed_sequence_does_not_count(bidirectional):
    torch.manual_seed(0)
    model = PackedInside(nn.GRU, UNITS, bidirectional=bidirectional)
    model.head = nn.Linear(UNITS * (1 + bidirectional), 3)
    model = model.double().eval()
    suffixes = ["l0", "l0_reverse"][: 1 + bidirectional]
    names = [f"rnn.{kind}_{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") for suffix in suffixes]
    axes = [(name, 0) for name in names] + [(f"rnn.weight_hh_{suffix}", 1) for suffix in suffixes]

    def make(units):
        made = PackedInside(nn.GRU, units, bidirectional=bidirectional)
        made.head = nn.Linear(units * (1 + bidirectional), 3)
        return made

    smaller, kept = _smaller(model, make, [*axes, ("head.weight", 1)])
    lengths = torch.tensor([5, 9, 2])
    (x,) = _batches((3, 9, 4))[0]
    garbage = torch.where(torch.arange(9)[None, :, None] < lengths[:, None, None], x, x + 1e3)
    other = copy.deepcopy(smaller)
    # The head sees the padded steps, which are zeros after unpacking, so only the layer is compared.
    refit(model, smaller, kept, _roles(kept), [(x, lengths)], ridge=RIDGE)
    refit(model, other, kept, _roles(kept), [(garbage, lengths)], ridge=RIDGE)
    for name in names:
        torch.testing.assert_close(other.get_parameter(name), smaller.get_parameter(name), atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_several_batches_are_one_sample_and_the_order_of_rows_is_none():
    model, smaller, kept = _recurrent("lstm")
    other = copy.deepcopy(smaller)
    batches = _batches((3, 6, 4), (5, 6, 4))
    refit(model, smaller, kept, _roles(kept), batches, ridge=RIDGE, turns=1)
    refit(model, other, kept, _roles(kept), [(torch.cat([x for (x,) in reversed(batches)]),)], ridge=RIDGE, turns=1)
    for name, value in smaller.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_dtypes_and_modes_are_kept(dtype):
    model, smaller, kept = _recurrent("gru")
    model, smaller = model.to(dtype), smaller.to(dtype).train()
    model.rnn.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refit(model, smaller, kept, _roles(kept), [(x.to(dtype),) for (x,) in _batches((4, 6, 4))])
    assert {value.dtype for value in smaller.state_dict().values()} == {dtype}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.training, model.rnn.training, smaller.training) == (False, True, True)
    assert all(parameter.requires_grad for parameter in smaller.parameters())


@torch.no_grad()
def test_the_ridge_is_chosen_where_none_is_given():
    model, smaller, kept = _recurrent("rnn")
    large = copy.deepcopy(smaller)
    batches = _batches(*[(8, 12, 4)] * 4)
    refit(model, smaller, kept, _roles(kept), batches)
    refit(model, large, kept, _roles(kept), batches, ridge=1e6)
    (x,) = _batches((20, 12, 4), seed=9)[0]
    wanted = model(x)
    assert (smaller(x) - wanted).square().mean() < 0.8 * (large(x) - wanted).square().mean()


class Shared(nn.Module):
    """Two Linear layers with one matrix."""

    def __init__(self, units):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, units), nn.Linear(units, 3), nn.Linear(units, 3)
        self.third.weight = self.second.weight

    def forward(self, x):
        hidden = self.first(x).tanh()
        return self.second(hidden) + self.third(hidden * 2)


class Grouped(nn.Module):
    """A convolution with its channels in groups."""

    def __init__(self, units):
        super().__init__()
        self.first, self.second = nn.Conv1d(4, units, 1), nn.Conv1d(units, 3, 1, groups=3)

    def forward(self, x):
        return self.second(self.first(x.transpose(1, 2)).tanh())


class Uncalled(nn.Module):
    """A consumer that this forward pass does not call."""

    def __init__(self, units):
        super().__init__()
        self.first, self.second = nn.Linear(4, units), nn.Linear(units, 3)

    def forward(self, x):
        return self.first(x).tanh()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Shared, "belongs to other modules too"), (Grouped, "channels are in groups"), (Uncalled, "is not called")],
)
def test_what_cannot_be_refitted_is_left_alone_and_named(kind, reason):
    torch.manual_seed(0)
    model, smaller = kind(UNITS).double().eval(), kind(UNITS).double().eval()
    smaller.load_state_dict(model.state_dict())
    kept = {("first.weight", 0): KEPT, ("first.bias", 0): KEPT, ("second.weight", 1): torch.ones(UNITS).bool()}
    before = copy.deepcopy(smaller.state_dict())
    done = refit(model, smaller, kept, _roles(kept), _batches((5, 6, 4)))
    assert not done.refits
    (skip,) = done.skipped
    assert skip.name == "second.weight"
    assert reason in skip.reason
    assert all(torch.equal(value, before[name]) for name, value in smaller.state_dict().items())


def test_a_computed_weight_is_left_alone_and_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, UNITS), parametrizations.weight_norm(nn.Linear(UNITS, 3))).double().eval()
    name = "1.parametrizations.weight.original1"
    done = refit(model, copy.deepcopy(model), {(name, 1): KEPT}, {(name, 1): "in"}, _batches((5, 6, 4)))
    assert not done.refits
    assert "cannot be refitted" in done.skipped[0].reason


def test_progress_names_each_layer():
    progress = Recorder()
    model, smaller, kept = _recurrent("gru")
    refit(model, smaller, kept, _roles(kept), _batches((4, 6, 4)), progress=progress)
    assert progress.bars[0].notes == ["rnn.weight_ih_l0", "head.weight"]
