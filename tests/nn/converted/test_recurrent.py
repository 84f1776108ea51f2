"""A stack of converted layers is called as PyTorch's recurrent layer is, in every form of call."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import CheckpointError, MethodError
from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.recurrent import ConvertedRecurrent

INPUT, HIDDEN, BATCH, LENGTH = 3, 5, 4, 11
LENGTHS = torch.tensor([11, 2, 7, 1])


def stack(layers=1, *, directions=1, lookahead=0, **options):
    torch.manual_seed(layers)
    widths = [INPUT, *[directions * HIDDEN] * layers]
    own = [
        FsmnLayer(
            width, after, projection=6, hidden=7, order=3, dilations=(1,), lookahead=lookahead, dtype=torch.float64
        )
        for width, after in itertools.pairwise(widths)
    ]
    given = {"batch_first": True, "bidirectional": directions == 2, "has_cell_state": False, "dropout": 0.0} | options
    return ConvertedRecurrent(own, **given)


def batch(length=LENGTH):
    return torch.randn(BATCH, length, INPUT, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def through(own, x):
    """The outputs (B, T, .) of every layer, one after the other."""
    outputs = []
    for layer in own.each:
        x = layer(x, None)
        outputs.append(x)
    return outputs


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("form", ["batch first", "time first", "one sequence"])
def test_outputs_and_states_have_the_form_of_the_call(layers, directions, form):
    own = stack(layers, directions=directions, batch_first=form != "time first")
    x, half = batch(), HIDDEN
    outputs = through(own, x)
    ends = [(part[:, -1, :half], part[:, 0, half:]) if directions == 2 else (part[:, -1],) for part in outputs]
    h_n = torch.stack([end for pair in ends for end in pair])  # (L * D, B, H)
    given = {"batch first": x, "time first": x.transpose(0, 1), "one sequence": x[2]}[form]
    found, states = own(given)
    wanted = {"batch first": outputs[-1], "time first": outputs[-1].transpose(0, 1), "one sequence": outputs[-1][2]}
    torch.testing.assert_close(found, wanted[form], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(states, h_n[:, 2] if form == "one sequence" else h_n, atol=1e-12, rtol=1e-12)
    reference = nn.GRU(INPUT, HIDDEN, layers, batch_first=form != "time first", bidirectional=directions == 2)
    assert [part.shape for part in reference(given.float())] == [found.shape, states.shape]


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_a_packed_batch_gives_what_each_sequence_gives_alone(enforce_sorted):
    own, x = stack(2, directions=2, lookahead=1), batch()
    order = LENGTHS.argsort(descending=True) if enforce_sorted else torch.arange(BATCH)
    packed = pack_padded_sequence(x[order], LENGTHS[order], batch_first=True, enforce_sorted=enforce_sorted)
    output, states = own(packed)
    padded, _ = pad_packed_sequence(output, batch_first=True)
    for place, index in enumerate(order.tolist()):
        length = int(LENGTHS[index])
        alone, alone_states = own(x[index : index + 1, :length])
        torch.testing.assert_close(padded[place, :length], alone[0], atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(states[:, place], alone_states[:, 0], atol=1e-12, rtol=1e-12)
        assert not padded[place, length:].any()


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 11])
def test_steps_give_what_the_whole_sequence_gives(batch_first, chunk):
    own, x = stack(2, batch_first=batch_first), batch()
    states = [value.expand(BATCH, *value.shape[1:]) for _, value in own.initial_states()]
    assert [name for name, _ in own.initial_states()] == ["0.memory", "1.memory"]
    found = []
    for part in x.split(chunk, 1):
        (output, h), states = own.step(part if batch_first else part.transpose(0, 1), states)
        found.append(output if batch_first else output.transpose(0, 1))
    wanted, h_n = own(x if batch_first else x.transpose(0, 1))
    torch.testing.assert_close(torch.cat(found, 1), wanted if batch_first else wanted.transpose(0, 1))
    torch.testing.assert_close(h, h_n)


def test_its_sizes_are_those_of_the_layer_that_it_replaces():
    own = stack(2, directions=2, lookahead=3)
    assert (own.input_size, own.hidden_size, own.num_layers, own.directions) == (INPUT, HIDDEN, 2, 2)
    assert own.lookahead == 6
    assert stack().lookahead == 0
    assert [name for name, _ in stack().initial_states()] == ["memory"]


def test_the_record_gives_the_same_stack_again():
    own = stack(2, directions=2, batch_first=False, dropout=0.25)
    again = ConvertedRecurrent.from_record(own.record(), dtype=torch.float64)
    again.load_state_dict(own.state_dict())
    assert again.record() == own.record()
    x = batch().transpose(0, 1)
    torch.testing.assert_close(again.eval()(x)[0], own.eval()(x)[0], rtol=0, atol=0)


@pytest.mark.parametrize("form", ["whole", "step", "packed"])
def test_of_several_layers_for_each_old_one_only_the_last_gives_a_state(form):
    own, x = stack(4, depth=2), batch()
    assert own.num_layers == 2
    second, fourth = (through(own, x)[place] for place in (1, 3))
    if form == "step":
        states = [value.expand(BATCH, *value.shape[1:]) for _, value in own.initial_states()]
        (_, h_n), _ = own.step(x, states)
        ends = torch.full((BATCH,), LENGTH)
    else:
        ends = LENGTHS if form == "packed" else torch.full((BATCH,), LENGTH)
        given = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False) if form == "packed" else x
        _, h_n = own(given)
    rows = torch.arange(BATCH)
    torch.testing.assert_close(h_n, torch.stack([second[rows, ends - 1], fourth[rows, ends - 1]]))


def test_the_number_of_layers_for_each_old_one_is_in_the_record_and_has_to_divide_them():
    own = stack(4, depth=2)
    again = ConvertedRecurrent.from_record(own.record(), dtype=torch.float64)
    assert (again.depth, again.num_layers) == (2, 2)
    with pytest.raises(CheckpointError, match="not a multiple of `depth: 3`"):
        ConvertedRecurrent.from_record({**own.record(), "depth": 3})


def test_dropout_is_between_layers_that_are_replaced_only():
    own, x = stack(2, depth=2, dropout=0.9).train(), batch()
    torch.testing.assert_close(own(x)[0], through(own, x)[-1], rtol=0, atol=0)


def test_dropout_is_between_layers_and_in_training_only():
    own, x = stack(2, dropout=0.9), batch()
    plain = own.eval()(x)[0]
    torch.testing.assert_close(plain, through(own, x)[-1], rtol=0, atol=0)
    assert not torch.equal(own.train()(x)[0], plain)
    alone = stack(1, dropout=0.9).train()
    torch.testing.assert_close(alone(x)[0], through(alone, x)[-1], rtol=0, atol=0)


def test_an_lstm_has_no_cell_state_to_give():
    _, (h_n, c_n) = stack(has_cell_state=True)(batch())
    assert h_n.shape == (1, BATCH, HIDDEN)
    uses = (
        lambda: c_n + 1,
        lambda: 2.0 * c_n,
        lambda: -c_n,
        lambda: c_n[0],
        lambda: torch.tanh(c_n),
        lambda: h_n @ c_n,
    )
    for use in uses:
        with pytest.raises(MethodError, match="reads the last cell state"):
            use()


def test_an_initial_state_must_be_zero():
    own, x, zero = stack(), batch(), torch.zeros(1, BATCH, HIDDEN)
    wanted = own(x)[0]
    for hx in (None, zero, (zero, zero)):
        torch.testing.assert_close(own(x, hx)[0], wanted, rtol=0, atol=0)
    for hx in (zero + 1, (zero, zero + 1), [zero + 1, zero]):
        with pytest.raises(MethodError, match="initial state that is not zero"):
            own(x, hx)
