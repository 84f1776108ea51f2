"""Units that pass between modules which become files: cut on both sides, and states of the old size still fit."""

import pytest
import torch
from torch import nn

from compressor.nn.seams import mark, seam_of
from compressor.surgery.rebuild import rebuild
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune

FEATURES, HIDDEN, CLASSES = 3, 8, 5


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.hint = nn.GRU(FEATURES, HIDDEN, batch_first=True), nn.Linear(HIDDEN, 7)

    def forward(self, x):
        memory, _ = self.rnn(x)
        return memory, self.hint(memory)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(HIDDEN, HIDDEN), nn.Linear(HIDDEN, CLASSES)

    def forward(self, memory, state):
        h, c = self.cell(memory.mean(1), state)
        return self.head(h), (h, c)


class Whole(nn.Module):
    """Two steps from a state that the model's own code makes, once of zeros and once of ones."""

    def __init__(self, start):
        super().__init__()
        self.encoder, self.decoder, self.start = Encoder(), Decoder(), start

    def forward(self, x):
        memory, _ = self.encoder(x)
        state = (torch.full((len(x), HIDDEN), self.start),) * 2
        first, state = self.decoder(memory, state)
        return torch.stack([first, self.decoder(memory, state=state)[0]], 1)


def whole(start=0.0):
    torch.manual_seed(0)
    model = Whole(start).eval()
    mark(model.encoder)
    mark(model.decoder)
    return model


def halved(model, names=("encoder.rnn", "decoder.cell"), **options):
    examples = [(torch.randn(2, 5, FEATURES),), (torch.randn(3, 4, FEATURES),)]
    return prune(model, {}, examples, names=names, amount=Amount(ratio=0.5), **options)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_both_sides_lose_the_same_units_and_a_state_of_the_old_size_still_fits(start):
    smaller = halved(whole(start)).model
    memory, _ = smaller.encoder(torch.randn(2, 5, FEATURES))
    assert memory.shape == (2, 5, HIDDEN // 2)
    assert smaller.decoder.cell.weight_ih.shape == (4 * HIDDEN // 2, HIDDEN // 2)
    wide = (torch.ones(2, HIDDEN),) * 2
    logits, (h, _) = smaller.decoder(memory, wide)
    assert (logits.shape, h.shape) == ((2, CLASSES), (2, HIDDEN // 2))


def test_without_a_mark_a_state_that_the_code_makes_keeps_its_units():
    model = Whole(1.0).eval()
    result = halved(model, required=("encoder.rnn",))
    assert result.model.decoder.cell.hidden_size == HIDDEN
    assert "fixed size" in result.skipped[0].reason


def test_a_second_removal_cuts_on_from_the_first_and_the_record_rebuilds_both():
    once = halved(whole())
    twice = halved(once.model)
    assert twice.model.decoder.cell.hidden_size == HIDDEN // 4
    x = torch.randn(2, 5, FEATURES)
    again = rebuild(whole(), [*once.structure, *twice.structure])
    again.load_state_dict(twice.model.state_dict())
    assert len(seam_of(again.decoder).cuts) == 2
    torch.testing.assert_close(again(x), twice.model(x))


def test_what_a_module_gives_and_no_layer_takes_in_keeps_its_size():
    result = halved(whole(), names=("encoder.rnn", "encoder.hint"), required=("encoder.rnn",))
    assert result.model.encoder.hint.out_features == 7
    assert "it is part of output 1 of `encoder`, which is a file" in result.skipped[0].reason


class Shared(nn.Module):
    """One network in two modules: a whole prompt first, then step by step."""

    def __init__(self):
        super().__init__()
        net = nn.GRU(FEATURES, HIDDEN, num_layers=2, batch_first=True)
        self.prefill, self.step = Prefill(net), Step(net)

    def forward(self, x):
        first, state = self.prefill(x)
        return torch.stack([first, self.step(x[:, 0], state)[0]], 1)


class Prefill(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net, self.head = net, nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        y, state = self.net(x)
        return self.head(y[:, -1]), state


class Step(Prefill):
    def forward(self, x, state):
        y, state = self.net(x[:, None], state)
        return self.head(y[:, 0]), state


def test_a_state_of_several_layers_is_cut_layer_by_layer():
    torch.manual_seed(0)
    model = Shared().eval()
    mark(model.prefill)
    mark(model.step)
    result = halved(model, names=("prefill.net",))
    smaller, x = result.model, torch.randn(2, FEATURES)
    assert smaller.prefill(torch.randn(2, 5, FEATURES))[1].shape == (2, 2, HIDDEN // 2)
    [edges] = seam_of(smaller.step).cuts
    [cut] = edges.inputs
    assert cut.rows[0] != cut.rows[1]
    wide = torch.randn(2, 2, HIDDEN)
    narrow = torch.stack([wide[layer][:, kept] for layer, kept in enumerate(cut.rows)])
    torch.testing.assert_close(smaller.step(x, wide), smaller.step(x, narrow))
    silent = edges.silence((x, wide))[1]
    assert torch.equal(cut(silent), narrow)
    assert int((silent != 0).sum()) == narrow.numel()
    again = rebuild(Shared(), result.structure)
    assert seam_of(again.step).cuts == (edges,)
