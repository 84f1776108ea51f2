"""`tie_layers`: stacks of recurrent layers, of PyTorch's encoder and of `transformers` share weights, stored once."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor import checkpoint
from compressor.errors import CheckpointError, MethodError
from compressor.formats import EXPORTERS, Job
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.magnitude import Magnitude
from compressor.methods.order import refuse_order
from compressor.methods.retrain import Retrain
from compressor.methods.tie_layers import TieLayers
from compressor.surgery.rebuild import rebuild
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.methods.conftest import CHANNELS, CLASSES, SignTask, make_context, same, weights

WIDTH = 24
SEQUENCES = {"x": {0: "batch", 1: "time"}}


class Stacked(nn.Module):
    """Four recurrent layers; all but the first have one shape."""

    def __init__(self, kind=nn.LSTM, layers=4, dropout=0.0, batch_first=True, bidirectional=False):
        super().__init__()
        options = {"batch_first": batch_first, "dropout": dropout, "bidirectional": bidirectional}
        self.rnn = kind(CHANNELS, WIDTH, layers, **options)
        self.head = nn.Linear(WIDTH * (1 + bidirectional), CLASSES)

    def forward(self, x):
        if not self.rnn.batch_first:
            x = x.transpose(0, 1)
        y = self.rnn(x)[0]
        return self.head(y[:, -1] if self.rnn.batch_first else y[-1])


class Encoding(nn.Module):
    def __init__(self, layers=4):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 40, 0.0, batch_first=True)
        self.enter, self.encoder = nn.Linear(CHANNELS, WIDTH), nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(WIDTH, CLASSES)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2)

    def forward(self, x):
        return self.head(self.encoder(self.enter(x))[:, -1])


class Bert(nn.Module):
    def __init__(self, layers=4):
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(vocab_size=11, hidden_size=WIDTH, num_hidden_layers=layers, num_attention_heads=4)
        config.intermediate_size, config.max_position_embeddings = 40, 32
        self.enter, self.bert = nn.Linear(CHANNELS, WIDTH), BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.bert(inputs_embeds=self.enter(x)).last_hidden_state[:, -1])


MODELS = {"lstm": Stacked, "gru": lambda: Stacked(nn.GRU), "encoder": Encoding, "bert": Bert}


def _state(kind="lstm"):
    torch.manual_seed(0)
    return State((MODELS[kind] if isinstance(kind, str) else kind)().eval())


def _apply(state, **options):
    return TieLayers(**options).apply(state, make_context(state.model, SignTask()))


def _inputs(seed=0):
    return torch.randn(3, 6, CHANNELS, generator=torch.Generator().manual_seed(seed))


def _distinct(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", MODELS)
def test_all_layers_of_one_shape_share_their_matrices_and_keep_their_vectors(kind):
    state = _state(kind)
    result = _apply(state)
    before, after = dict(state.model.named_parameters()), dict(result.state.model.named_parameters())
    gone = before.keys() - after.keys()
    assert gone
    assert all(before[name].dim() > 1 for name in gone)
    assert _distinct(result.state.model) == _distinct(state.model) - sum(before[name].numel() for name in gone)
    tied = 3 if kind in ("lstm", "gru") else 4
    assert result.changes[0].note.startswith(f"matrices shared by {tied} layers, from ")


@pytest.mark.parametrize("kind", MODELS)
def test_layers_that_are_equal_give_the_same_bits_when_they_share(kind):
    state = _state(kind)
    first = _apply(state, share="all").state.model
    apart = copy.deepcopy(first)
    for module in apart.modules():  # the same numbers in tensors of their own
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                setattr(module, name, nn.Parameter(parameter.detach().clone()))
    assert _distinct(apart) == _distinct(state.model)
    for start in ("mean", "best", "first"):
        again = _apply(State(apart), share="all", start=start).state.model
        assert again(_inputs()).equal(apart(_inputs()))
        assert _distinct(again) == _distinct(first)


def test_the_mean_is_that_of_the_layers():
    state = _state("encoder")
    model = _apply(state, groups=2, start="mean").state.model
    layers, tied = state.model.encoder.layers, model.encoder.layers
    torch.testing.assert_close(tied[2].linear1.weight, (layers[2].linear1.weight + layers[3].linear1.weight) / 2)
    assert tied[0].linear1.weight is tied[1].linear1.weight
    assert tied[1].linear1.weight is not tied[2].linear1.weight
    assert tied[3].linear1.bias.equal(layers[3].linear1.bias)


def test_the_best_start_moves_the_outputs_no_more_than_any_other():
    from compressor.surgery.depth.errors import OutputError

    state = _state("encoder")
    context = make_context(state.model, SignTask())
    error = OutputError(state.model, [inputs for inputs, _ in context.first_batches(8)])
    best, mean, first = (_apply(state, start=start) for start in ("best", "mean", "first"))
    assert best.facts["error of the outputs"] == pytest.approx(error.of(best.state.model))
    assert best.facts["error of the outputs"] <= min(error.of(other.state.model) for other in (mean, first))


@pytest.mark.parametrize("kind", MODELS)
def test_the_file_holds_shared_weights_once_and_agrees_at_other_sizes(kind, tmp_path):
    state = _state(kind)
    task = RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)
    sizes = []
    for number, model in enumerate([state.model, _apply(state).state.model]):
        path = tmp_path / f"{number}.onnx"
        export(Job(model, task, path, Options(), seed=0))
        check_file(path, model, task)
        sizes.append(path.stat().st_size)
    removed = 4 * (_distinct(state.model) - _distinct(model))
    assert sizes[0] - sizes[1] > 0.95 * removed


@pytest.mark.parametrize(
    ("kind", "form", "options", "part"),
    [
        ("gru", "onnx", {"precision": "int8"}, 0.9),
        ("gru", "onnx", {"stream": True}, 0.9),
        ("gru", "ort", {}, 0.95),
        ("lstm", "c", {}, 2.5),  # text: several characters for a number
    ],
)
def test_other_formats_hold_them_once_too(kind, form, options, part, tmp_path):
    """`part` of the bytes of the weights that are gone, at one byte a weight in 8 bits."""
    state = _state(kind)
    task = RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)
    kinds, write = EXPORTERS[form].load()
    sizes = []
    for number, model in enumerate([state.model, _apply(state).state.model]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(Job(model, task, folder / f"model.{form}", kinds(format=form, **options)))
        sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
    files = 2 if options.get("stream") else 1
    width = 1 if "precision" in options else 4
    assert sizes[0] - sizes[1] > part * width * files * (_distinct(state.model) - _distinct(model))


@pytest.mark.parametrize("kind", MODELS)
def test_training_keeps_them_shared_and_the_checkpoint_too(kind, tmp_path):
    state = _state(kind)
    tied = _apply(state).state
    trained = Retrain(epochs=1, distill=True).apply(tied, make_context(state.model, SignTask())).state
    assert _distinct(trained.model) == _distinct(tied.model) < _distinct(state.model)
    checkpoint.save(tmp_path, trained.model, trained.structure)
    task = SignTask()
    task.model = MODELS[kind]
    loaded = checkpoint.load(tmp_path, task)
    assert same(weights(loaded), weights(trained.model))
    assert _distinct(loaded) == _distinct(trained.model)
    assert (tmp_path / checkpoint.WEIGHTS_FILE).stat().st_size < 4 * _distinct(trained.model) + 20_000


def test_groups_are_neighbours_as_equal_as_possible_or_those_that_are_named():
    state = _state("encoder")
    assert [change.name for change in _apply(state, groups=3).changes] == ["encoder.layers: 0, 1"]
    named = _apply(state, groups=[[3, 0]])
    assert [change.name for change in named.changes] == ["encoder.layers: 0, 3"]
    layers = named.state.model.encoder.layers
    assert layers[0].linear1.weight is layers[3].linear1.weight
    assert layers[1].linear1.weight.equal(state.model.encoder.layers[1].linear1.weight)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize(("batch_first", "bidirectional"), [(False, False), (True, True)])
def test_recurrent_layers_in_any_order_of_axes_and_directions(kind, batch_first, bidirectional):
    state = _state(lambda: Stacked(kind, 3, dropout=0.3, batch_first=batch_first, bidirectional=bidirectional))
    model = _apply(state, share="all").state.model
    assert model.rnn.weight_hh_l1 is model.rnn.weight_hh_l2
    assert model.rnn.weight_hh_l0 is not model.rnn.weight_hh_l1
    if bidirectional:
        assert model.rnn.weight_ih_l1_reverse is model.rnn.weight_ih_l2_reverse
        assert model.rnn.weight_ih_l1_reverse is not model.rnn.weight_ih_l1


def test_masks_go_along_and_different_ones_have_no_mean():
    state = _state("encoder")
    context = make_context(state.model, SignTask())
    pruned = Magnitude(prune="weights", sparsity=0.5, targets=("encoder.layers.*",)).apply(state, context).state
    tied = _apply(pruned)
    names = [f"encoder.layers.{index}.linear1.weight" for index in range(4)]
    assert all(tied.state.masks[name].equal(tied.state.masks[names[0]]) for name in names)
    assert not tied.state.model.get_parameter(names[3])[~tied.state.masks[names[3]]].any()
    assert "from layer" in tied.changes[0].note
    with pytest.raises(MethodError, match="their mean has other zeros") as caught:
        _apply(pruned, start="mean")
    assert "start: first" in caught.value.hint


def test_layers_that_lost_different_units_are_not_of_one_shape():
    state = _state("encoder")
    context = make_context(state.model, SignTask())
    options = {"prune": "units", "count": 8, "compensate": False}
    pruned = Magnitude(targets=("encoder.layers.1.linear1",), **options).apply(state, context).state
    assert [change.name for change in _apply(pruned).changes] == ["encoder.layers: 0, 2, 3"]
    with pytest.raises(MethodError, match="differ in class or shapes") as caught:
        _apply(pruned, groups=[[0, 1]])
    assert caught.value.hint == "layers that may share: 0, 2, 3"


@pytest.mark.parametrize("kind", ["lstm", "encoder"])
def test_units_are_pruned_before_and_weights_in_any_order(kind):
    state = _state(kind)
    targets = ("*.linear1",) if kind == "encoder" else None
    units = Magnitude(prune="units", ratio=0.5, targets=targets, compensate=False)
    context, tie = make_context(state.model, SignTask()), TieLayers()
    pruned = units.apply(state, context).state
    tied = tie.apply(pruned, context).state
    assert _distinct(tied.model) < _distinct(pruned.model)
    assert _distinct(rebuild(MODELS[kind](), tied.structure)) == _distinct(tied.model)
    with pytest.raises(MethodError, match=r"`steps.1` \(magnitude\): `steps.0` \(tie_layers\) lets layers") as caught:
        refuse_order([tie, units], state.model, SignTask())
    assert caught.value.hint == "put `magnitude` in front of `tie_layers`"
    weights_only = Magnitude(prune="weights", sparsity=0.5, targets=("*",))
    refuse_order([units, tie, weights_only, Retrain()], state.model, SignTask())
    done = Retrain().apply(weights_only.apply(tied, context).state, context).state
    assert _distinct(done.model) == _distinct(tied.model)
    assert not any(done.model.get_parameter(name)[~mask].any() for name, mask in done.masks.items())


def test_hooks_and_buffers_stay_with_each_layer():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)

        def forward(self, x):
            return x + self.norm(self.linear(x).mT).mT

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(CHANNELS, WIDTH), Block(), nn.ReLU(), Block(), nn.Linear(WIDTH, 2))

        def forward(self, x):
            return self.body(x)[:, -1]

    state = _state(Net)
    state.model.body[3].norm.running_mean.fill_(0.5)
    calls = []
    state.model.body[1].register_forward_hook(lambda *_: calls.append(1))
    tied = _apply(state).state.model
    assert [float(tied.body[place].norm.running_mean[0]) for place in (1, 3)] == [0.0, 0.5]
    calls.clear()
    tied(_inputs())
    assert calls == [1]
    assert tied.body[1].linear.weight is tied.body[3].linear.weight


def test_one_module_in_several_places_shares_already():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(CHANNELS, CHANNELS)] * 3)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x[:, -1, :2]

    with pytest.raises(MethodError, match="share these weights already"):
        TieLayers().check_task(Looped(), SignTask())


def test_only_outer_stacks_are_chosen_unless_an_inner_one_is_named():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(2))

        def forward(self, x):
            return self.parts[1](self.parts[0](x))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Inner() for _ in range(2))

        def forward(self, x):
            return self.layers[1](self.layers[0](x))[:, -1, :2]

    state = _state(Outer)
    result = _apply(state)
    assert [change.name for change in result.changes] == ["layers: 0, 1"]
    assert [skip.reason for skip in result.skipped] == ["inside a layer of another stack"] * 2
    inner = _apply(state, targets=("layers.1.parts",)).state.model
    assert inner.layers[1].parts[0].weight is inner.layers[1].parts[1].weight
    assert inner.layers[0].parts[0].weight is not inner.layers[0].parts[1].weight


def test_what_has_no_stack_is_refused():
    with pytest.raises(MethodError, match="the model has no stack of layers"):
        TieLayers().check_task(Stacked(layers=2), SignTask())
    with pytest.raises(MethodError, match="`head` matches only"):
        TieLayers(targets=("head",)).check_task(Encoding(), SignTask())
    with pytest.raises(MethodError, match="no layers are left to share weights"):
        TieLayers(groups=9).check_task(Encoding(), SignTask())
    with pytest.raises(MethodError, match=r"\[3, 4\] names a layer that `encoder.layers` does not have"):
        TieLayers(groups=[[3, 4]]).check_task(Encoding(), SignTask())


def test_options_that_do_not_belong_together_are_refused():
    for options, text in [
        ({"groups": [[1]]}, "at least two layers"),
        ({"groups": [[0, 1], [1, 2]]}, "in one group only"),
        ({"start": "mean", "calibration_batches": 3}, "has no effect without `start: best`"),
    ]:
        with pytest.raises(ValidationError, match=text):
            TieLayers(**options)


def test_a_record_that_does_not_fit_is_refused():
    for groups in (None, [["rnn.weight_hh_l1", "rnn.weight_hh_l9"]], [["rnn.weight_ih_l0", "rnn.weight_ih_l1"]], [[3]]):
        with pytest.raises(CheckpointError, match="the record shares weights"):
            rebuild(Stacked(), [{"kind": "tie", "groups": groups}])


def test_a_record_whose_groups_overlap_is_one_group():
    names = [f"rnn.weight_hh_l{layer}" for layer in range(4)]
    groups = [[names[0], names[1]], [names[1], names[0]], [names[3], names[1]]]
    model = rebuild(Stacked(), [{"kind": "tie", "groups": groups}])
    assert len({id(model.get_parameter(name)) for name in names}) == 2


def test_the_word_is_known():
    assert METHODS["tie_layers"] is TieLayers
