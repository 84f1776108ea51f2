"""Recurrent layers become others, fitted to what they gave; whatever cannot be kept is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.convert import Convert
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.nn.converted import recurrent
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.converted.target import DESCRIPTIONS, OWN_OPTIONS, WORDS
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.task.contract import Task
from compressor.testing import random_lengths
from tests.methods.conftest import BATCH, CHANNELS, HIDDEN, Tagger, make_context, same, weights
from tests.surgery import topologies
from tests.surgery.rebuilding import rebuilt_from
from tests.surgery.topologies import CELLS, INPUT

QUICK = {"distill_steps": 0, "order": 3}
UNTRAINED = {"distill_steps": 0}
TARGETS = {**dict.fromkeys(WORDS, UNTRAINED), "fsmn": QUICK}


class Sequences(Task):
    """Random features, and lengths if the model takes them."""

    length, min_length, max_length = 6, 1, 40

    def __init__(self, lengths=True, size=INPUT):
        self.lengths, self.size = lengths, size

    def inputs_of(self, batch, length, generator=None):
        x = torch.randn(batch, length, self.size, generator=generator)
        lengths = torch.randint(1, length + 1, (batch,), generator=generator)
        lengths[0] = length
        return (x, lengths) if self.lengths else (x,)

    def model(self):
        raise NotImplementedError

    def example(self, batch, length):
        return self.inputs_of(batch, length)

    def batches(self, generator):
        for _ in range(4):
            yield self.inputs_of(BATCH, self.length, generator), torch.zeros(BATCH, dtype=torch.long)

    def loss(self, outputs, target):
        return outputs.square().mean()

    def evaluate(self, forward):
        return 0.0


def convert(model, task=None, masks=None, **options):
    context = make_context(model, task or Sequences())
    given = {"to": "fsmn"} | options
    return Convert(**(TARGETS[given["to"]] | given)).apply(State(model.eval(), masks or {}), context)


def topology(name, cell="gru"):
    torch.manual_seed(0)
    return getattr(topologies, name)(CELLS[cell]).eval()


ONE_WAY = ("EveryStep", "LastStep", "LastState", "Stacked", "NoBias", "SequenceFirst", "Packed", "PackedMean")


CASES = [
    (name, cell, to) for to in TARGETS for name in ONE_WAY for cell in CELLS if to == "fsmn" or cell in name + "gru"
]


@pytest.mark.parametrize(("name", "cell", "to"), CASES)
def test_a_converted_model_runs_at_any_size_and_is_rebuilt_from_its_record(name, cell, to):
    model = topology(name, cell)
    before = weights(model)
    result = convert(model, to=to)
    assert same(weights(model), before)
    assert isinstance(result.state.model.rnn, ConvertedRecurrent)
    rebuilt = rebuilt_from(result.state, topology(name, cell))
    for batch, length in ((1, 1), (3, 2), (2, 31)):
        x, lengths = torch.randn(batch, length, INPUT), random_lengths(batch, length).clamp(min=1)
        lengths[0] = length
        outputs = [every(x, lengths) for every in (model, result.state.model, rebuilt)]
        assert outputs[0].shape == outputs[1].shape
        assert torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("name", ["Bidirectional", "SummedDirections", "SummedView"])
def test_both_directions_become_one_layer_that_looks_ahead(name):
    model = topology(name, "lstm")
    with pytest.raises(MethodError, match="`rnn` is bidirectional") as caught:
        convert(model)
    assert "give `lookahead`" in caught.value.hint
    with pytest.raises(MethodError, match="`rnn` is bidirectional") as caught:
        convert(model, to="para_rnn")
    assert "convert it to `fsmn`" in caught.value.hint
    result = convert(model, lookahead=2)
    x = torch.randn(3, 7, INPUT)
    assert result.state.model(x, None).shape == model(x, None).shape


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_states_are_read_off_the_outputs_as_in_pytorch(packed, batch_first):
    """h_n of every layer and direction lies where PyTorch's is, so a native layer's own outputs give it."""
    torch.manual_seed(0)
    native = nn.GRU(INPUT, HIDDEN, batch_first=batch_first, bidirectional=True)
    inner = nn.GRU(INPUT, HIDDEN, batch_first=True, bidirectional=True)
    inner.load_state_dict(native.state_dict())
    x, lengths = torch.randn(3, 5, INPUT), torch.tensor([2, 5, 4])

    class Same(nn.Module):
        """A layer of a stack that gives the native layer's outputs."""

        def forward(self, x, valid=None):
            if valid is None:
                return inner(x)[0]
            steps = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(inner(steps)[0], batch_first=True)[0]

    stack = ConvertedRecurrent([Same()], batch_first=batch_first, bidirectional=True, has_cell_state=False, dropout=0.0)
    given = x if batch_first else x.transpose(0, 1)
    if packed:
        given = nn.utils.rnn.pack_padded_sequence(given, lengths, batch_first=batch_first, enforce_sorted=False)
    (y, h), (expected, h_expected) = stack(given), native(given)
    torch.testing.assert_close(h, h_expected)
    torch.testing.assert_close(y.data if packed else y, expected.data if packed else expected)


def test_a_single_sequence_without_a_batch_axis_gives_what_a_batch_of_one_gives():
    stack = convert(topology("Stacked")).state.model.rnn
    x = torch.randn(5, INPUT)
    (y, h), (batch, states) = stack(x), stack(x[None])
    assert (y.shape, h.shape) == (batch[0].shape, (3, topologies.HIDDEN))
    torch.testing.assert_close(y, batch[0])
    torch.testing.assert_close(h, states[:, 0])


def test_each_stage_of_fitting_comes_nearer_on_held_out_batches():
    facts = convert(topology("EveryStep"), distill_steps=150).facts
    start, after = (facts[f"rnn: error {stage}"] for stage in ("at the start (least squares)", "after distillation"))
    assert after < start < 0.6


def test_pruned_before_and_after_and_rebuilt():
    torch.manual_seed(0)
    model, task = Tagger(hidden=12).eval(), Sequences(lengths=False, size=CHANNELS)
    context = make_context(model, task)
    uneven = Magnitude(prune="units", ratio=0.4, scope="global", compensate=False).apply(State(model), context)
    assert isinstance(uneven.state.model.rnn, UnevenRecurrent)
    converted = Convert(to="fsmn", projection=6, hidden=9, **QUICK).apply(uneven.state, context)
    assert [layer.output_size for layer in converted.state.model.rnn.layers] == [
        size for [size] in uneven.state.model.rnn.hidden_sizes
    ]
    after = Magnitude(
        prune="units", ratio=0.5, targets=["rnn.layers.*.project", "rnn.layers.*.expand.*"], compensate=False
    ).apply(converted.state, context)
    first = after.state.model.rnn.layers[0]
    assert (first.project.out_features, first.readout.in_features) == (3, 5)
    assert first.memories[0].groups == 3
    rebuilt = rebuilt_from(after.state, Tagger(hidden=12))
    x = torch.randn(3, 9, CHANNELS)
    torch.testing.assert_close(rebuilt.eval()(x), after.state.model(x))


def test_a_converted_model_is_retrained_with_the_original_as_teacher():
    torch.manual_seed(0)
    model, task = Tagger(dropout=0.1).eval(), Sequences(lengths=False, size=CHANNELS)
    result = convert(model, task)
    trained = Retrain(epochs=1, lr=1e-2, distill=True).apply(result.state, make_context(model, task))
    assert "rnn.layers.0.project" in {change.name for change in trained.changes}
    assert result.state.model.rnn.dropout == 0.1


def test_masks_of_the_old_layer_go_and_others_stay():
    model = topology("EveryStep")
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in model.named_parameters()}
    assert set(convert(model, masks=masks).state.masks) == {"head.weight", "head.bias"}


def test_float64_stays_float64():
    class Double(Sequences):
        def inputs_of(self, batch, length, generator=None):
            return (super().inputs_of(batch, length, generator)[0].double(), torch.ones(batch).long())

    model = topology("EveryStep").double()
    new = convert(model, Double(), distill_steps=3).state.model
    assert {weight.dtype for weight in new.parameters()} == {torch.float64}


class GivenState(nn.Module):
    """Hands an initial state to its layer: zeros, or something of the input."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.rnn = kind, nn.GRU(CHANNELS, HIDDEN, batch_first=True)

    def forward(self, x):
        zeros = x.new_zeros(1, x.shape[0], HIDDEN)
        return self.rnn(x, zeros + (0.0 if self.kind == "zeros" else x[:, 0, :1]))[0]


def test_an_initial_state_of_zeros_is_no_hindrance():
    task = Sequences(lengths=False, size=CHANNELS)
    model = convert(GivenState("zeros"), task).state.model
    assert model(torch.randn(2, 5, CHANNELS)).shape == (2, 5, HIDDEN)
    with pytest.raises(MethodError, match="initial state that is not zero"):
        model.rnn(torch.randn(2, 5, CHANNELS), torch.ones(1, 2, HIDDEN))


def test_an_initial_state_that_is_only_zero_in_the_examples_is_found_out():
    class Zeros(Sequences):
        """Examples and batches whose first step is zero."""

        def inputs_of(self, batch, length, generator=None):
            [x] = super().inputs_of(batch, length, generator)
            return (x.index_fill(1, torch.tensor([0]), 0.0),)

    with pytest.raises(MethodError, match="depends on the model's inputs"):
        convert(GivenState("input"), Zeros(lengths=False, size=CHANNELS), targets=["rnn"])


class CellState(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give, self.rnn = give, nn.LSTM(CHANNELS, HIDDEN, batch_first=True)

    def forward(self, x):
        y, (_h, c) = self.rnn(x)
        return (y, c) if self.give else y + c[-1][:, None]


@pytest.mark.parametrize(
    ("give", "message"), [(False, "reads the last cell state"), (True, "gives out the cell state")]
)
def test_a_model_that_needs_the_cell_state_is_refused(give, message):
    with pytest.raises(MethodError, match=message):
        convert(CellState(give), Sequences(lengths=False, size=CHANNELS))


class Two(nn.Module):
    """Two layers, one of which is never called."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = (nn.GRU(CHANNELS, HIDDEN, batch_first=True) for _ in range(2))

    def forward(self, x):
        return self.used(x)[0]


def test_a_layer_that_is_never_called_is_listed_and_refused_if_it_is_named():
    task = Sequences(lengths=False, size=CHANNELS)
    result = convert(Two(), task)
    assert [(skip.name, "not called" in skip.reason) for skip in result.skipped] == [("idle", True)]
    with pytest.raises(MethodError, match="`idle` cannot be converted: it is not called"):
        convert(Two(), task, targets=["idle", "used"])


def test_what_has_no_recurrent_layer_and_what_is_one_itself_is_refused():
    task = Sequences(lengths=False, size=CHANNELS)
    with pytest.raises(MethodError, match="to convert"):
        convert(nn.Linear(CHANNELS, 2), task)
    with pytest.raises(MethodError, match="itself is the recurrent layer"):
        convert(nn.GRU(CHANNELS, HIDDEN, batch_first=True), task)
    with pytest.raises(MethodError, match="to convert") as caught:
        convert(convert(topology("EveryStep")).state.model)
    assert "an earlier `convert` replaced `rnn` already" in caught.value.hint


@pytest.mark.parametrize(("cell", "own"), [("lstm", "lstm"), ("gru", "gru"), ("rnn_relu", "gru")])
def test_a_diagonal_layer_has_the_cell_of_the_old_one(cell, own):
    result = convert(topology("EveryStep", cell), to="para_rnn", hidden=9)
    layer = result.state.model.rnn.layers[0]
    assert (layer.cell, layer.readout.in_features) == (own, 9)
    assert result.facts["rnn: error at the start (least squares)"] < 0.7


def test_a_dense_state_is_fitted_and_rebuilt():
    model = topology("Stacked")
    result = convert(model, to="lssl", state="dense", state_size=3)
    layers = result.state.model.rnn.layers
    assert [(layer.oscillators, layer.state_size) for layer in layers] == [(None, 3)] * len(layers)
    assert "a dense state of 3 numbers a channel" in result.changes[0].note
    assert result.facts["rnn: layers.0: error at the start (least squares)"] < 0.7
    rebuilt = rebuilt_from(result.state, topology("Stacked"))
    x, lengths = torch.randn(2, 9, INPUT), torch.tensor([9, 4])
    assert torch.equal(rebuilt(x, lengths), result.state.model(x, lengths))


@pytest.mark.parametrize("target", ["additive", "lssl"])
def test_a_memory_cache_is_fitted_and_rebuilt(target):
    model = topology("Stacked")
    result = convert(model, to=target, memory_cache=2, cache_segment=3, distill_steps=60)
    assert "2 slots of 3" in result.changes[0].note
    assert any(bool(layer.cache.ask.weight.any()) for layer in result.state.model.rnn.layers)
    rebuilt = rebuilt_from(result.state, topology("Stacked"))
    x, lengths = torch.randn(2, 9, INPUT), torch.tensor([9, 4])
    assert torch.equal(rebuilt(x, lengths), result.state.model(x, lengths))


@pytest.mark.parametrize("to", [word for word in TARGETS if word != "fsmn"])
def test_several_new_layers_in_place_of_each_old_one_are_fitted_together_and_rebuilt(to):
    model = topology("Stacked")
    result = convert(model, to=to, depth=2, hidden=6, distill_steps=3)
    rnn = result.state.model.rnn
    layers = model.rnn.num_layers
    assert (len(rnn.each), rnn.num_layers) == (2 * layers, layers)
    assert [layer.output_size for layer in rnn.each] == [6, model.rnn.hidden_size] * layers
    assert "2 layers for each" in result.changes[0].note
    assert sum("at the start" in name for name in result.facts) == layers
    again = rebuilt_from(result.state, topology("Stacked"))
    x, lengths = Sequences().example(3, 9)
    assert again(x, lengths).equal(result.state.model(x, lengths))


def test_units_of_a_diagonal_layer_are_removed_and_rebuilt():
    torch.manual_seed(0)
    model, task = Tagger().eval(), Sequences(lengths=False, size=CHANNELS)
    converted = convert(model, task, to="para_rnn", hidden=8)
    step = Magnitude(prune="units", ratio=0.5, targets=["rnn.layers.*.project"], compensate=False)
    after = step.apply(converted.state, make_context(model, task))
    layer = after.state.model.rnn.layers[1]
    assert (layer.project.out_features, layer.readout.in_features, layer.diagonals[0].numel()) == (12, 4, 4)
    rebuilt = rebuilt_from(after.state, Tagger())
    x = torch.randn(3, 9, CHANNELS)
    torch.testing.assert_close(rebuilt.eval()(x), after.state.model(x))


def test_the_same_seed_gives_the_same_layer_and_a_rehearsal_is_short():
    model = topology("Stacked")
    first, second = (convert(model, distill_steps=3).state.model for _ in range(2))
    assert same(weights(first), weights(second))
    context = make_context(model, Sequences(), quick=True)
    assert Convert(to="fsmn", distill_steps=1_000_000).apply(State(model), context).changes


def test_each_option_belongs_to_the_targets_whose_record_names_it():
    assert tuple(recurrent.TARGETS) == WORDS == tuple(DESCRIPTIONS)
    others = {"projection": {"projection", "values"}, "state": {"state_size"}}  # values are the projection by the heads
    own = {option: owners for option, owners in OWN_OPTIONS.items() if option != "depth"}
    assert OWN_OPTIONS["depth"] == tuple(word for word in WORDS if word != "fsmn")  # whose record has `dilations`
    for option, owners in own.items():
        names = others.get(option, {option})
        assert owners == tuple(
            to for to, kind in recurrent.TARGETS.items() if names & set(kind.record_type.model_fields)
        )


def test_help_says_what_each_target_is_and_which_options_are_its_own():
    described = Convert.model_json_schema()
    for word, target in DESCRIPTIONS.items():
        assert f"`{word}` is {target.what}." in described["description"]
    for name, owners in OWN_OPTIONS.items():
        text = described["properties"][name]["description"].replace("`to: ", "`")
        assert [word for word in WORDS if f"`{word}`" in text] == list(owners)
    assert described["properties"]["targets"]["description"] == Convert.model_fields["targets"].description


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "gru"}, "Input should be 'fsmn'"),
        ({"to": "lssl", "dilations": [2]}, "`dilations` belongs to `to: fsmn`"),
        ({"to": "fsmn", "state": "dense"}, "`state` belongs to `to: lssl`, not to `to: fsmn`"),
        ({"to": "lssl", "state": "dense", "oscillators": 2}, "`oscillators` has no effect with `state: dense`"),
        ({"to": "plstm", "memory_cache": 3}, "`memory_cache` belongs to `to: lssl and additive`"),
        ({"to": "additive", "cache_segment": 3}, "`cache_segment` has no effect without `memory_cache`"),
        ({"to": "lssl", "state_size": 3}, "`state_size` has no effect with `state: diagonal`"),
        ({"to": "fsmn", "keys": 3}, "`keys` belongs to `to: additive, .+`, not to `to: fsmn`"),
        ({"to": "additive", "constant_gates": True}, "`constant_gates` belongs to `to: plstm`"),
        ({"to": "para_rnn", "order": 3}, "`order` belongs to `to: fsmn`"),
        ({"to": "fsmn", "clip": 0.9}, "`clip` belongs to `to: para_rnn`"),
        ({"to": "fsmn", "depth": 2}, "`depth` belongs to `to: lssl, para_rnn, additive, plstm and m2rnn`"),
        ({"to": "fsmn", "order": 1}, "greater than or equal to 2"),
        ({"to": "fsmn", "dilations": []}, "at least 1 item"),
        ({"to": "fsmn", "distill_steps": 0, "distill_lr": 0.1}, "`distill_lr` has no effect"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        Convert(**options)
