"""`depth_search`: chains of layers in lists, in PyTorch's and `transformers`' encoders and in recurrent modules."""

from __future__ import annotations

import copy
from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor import checkpoint
from compressor.errors import CheckpointError, MethodError
from compressor.formats import Job
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.depth_search import DepthSearch
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.methods.tie_layers import TieLayers
from compressor.surgery.depth.chains import Site, arrange
from compressor.surgery.depth.errors import OutputError
from compressor.surgery.rebuild import rebuild
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.methods.conftest import CHANNELS, CLASSES, SignTask, make_context, same, weights
from tests.methods.test_tie_layers import SEQUENCES, WIDTH, Bert, Encoding, Stacked
from tests.surgery.rebuilding import rebuilt_from


class Block(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + torch.tanh(self.linear(self.norm(x)))


class Residual(nn.Module):
    """Blocks in a list; `way` says how `forward` goes through them."""

    def __init__(self, layers=4, way="plain"):
        super().__init__()
        self.way = way
        self.enter, self.head = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CLASSES)
        kind = nn.Linear if way == "outer residual" else Block
        self.blocks = nn.ModuleList(kind(WIDTH, WIDTH) if kind is nn.Linear else kind() for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(layers)) if way == "norms" else None
        self.scales = nn.Parameter(torch.rand(layers)) if way in ("scales", "arguments") else None

    def forward(self, x):
        x = self.enter(x)
        for number, block in enumerate(self.blocks):
            x = x + block(x) if self.way == "outer residual" else block(x)
            if self.way == "norms":
                x = self.norms[number](x)
            if self.way == "scales":
                x *= self.scales[number]
        return self.head(x[:, -1])


class Sequential(nn.Module):
    def __init__(self, layers=4):
        super().__init__()
        blocks = [(f"block{number}", Block()) for number in range(layers)]
        self.body = nn.Sequential()
        for name, module in [("enter", nn.Linear(CHANNELS, WIDTH)), *blocks, ("head", nn.Linear(WIDTH, CLASSES))]:
            self.body.add_module(name, module)

    def forward(self, x):
        return self.body(x)[:, -1]


MODELS = {
    "residual": Residual,
    "outer residual": lambda: Residual(way="outer residual"),
    "sequential": Sequential,
    "encoder": Encoding,
    "bert": Bert,
    "lstm": Stacked,
    "gru": lambda: Stacked(nn.GRU),
}
STACKS = {
    "residual": "blocks", "outer residual": "blocks", "sequential": "body", "encoder": "encoder.layers",
    "bert": "bert.encoder.layer", "lstm": "rnn", "gru": "rnn",
}  # fmt: skip


def _state(kind="residual"):
    torch.manual_seed(0)
    return State((MODELS[kind] if isinstance(kind, str) else kind)().eval())


def _apply(state, seed=0, **options):
    return DepthSearch(**options).apply(state, make_context(state.model, SignTask(), seed=seed))


def _inputs():
    return torch.randn(3, 6, CHANNELS, generator=torch.Generator().manual_seed(0))


def _distinct(model):
    return sum(parameter.numel() for parameter in model.parameters())


def _site(kind):
    first = 1 if kind == "sequential" else 0
    return Site(STACKS[kind], first, 4, pinned=kind in ("lstm", "gru"))


@pytest.mark.parametrize("kind", MODELS)
def test_the_chain_of_all_layers_changes_no_bit(kind):
    model = _state(kind).model
    expected = model(_inputs())
    names = list(model.state_dict())
    arrange(model, _site(kind), (0, 1, 2, 3))
    assert model(_inputs()).equal(expected)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("kind", MODELS)
def test_a_chain_is_the_layers_one_behind_the_other(kind):
    """Against a model in which the weights were put there by hand."""
    model = _state(kind).model
    chain, by_hand = (0, 2, 1), copy.deepcopy(model)
    arrange(by_hand, _site(kind), (0, 1, 2))
    sources, targets = (_layers(each, kind) for each in (model, by_hand))
    for place, number in enumerate(chain):
        for target, source in zip(targets[place], sources[number], strict=True):
            target.data.copy_(source)
    arrange(model, _site(kind), chain)
    assert model(_inputs()).equal(by_hand(_inputs()))


def _layers(model, kind):
    """Copies of the weights for reading from, the parameters for writing to."""
    stack = model.get_submodule(STACKS[kind])
    if kind in ("lstm", "gru"):
        return [[p for name, p in stack.named_parameters() if name.endswith(f"l{n}")] for n in range(stack.num_layers)]
    return [list(layer.parameters()) for name, layer in stack.named_children() if name not in ("enter", "head")]


@pytest.mark.parametrize("kind", MODELS)
def test_a_search_leaves_layers_out_and_the_file_agrees(kind, tmp_path):
    state = _state(kind)
    result = _apply(state, layers=2)
    assert result.facts["layers before"] == 4.0
    assert result.facts["layers after"] == 2.0
    assert _distinct(result.state.model) < _distinct(state.model)
    assert [skip.name for skip in result.skipped] == []
    task = RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)
    export(Job(result.state.model, task, tmp_path / "model.onnx", Options()))
    check_file(tmp_path / "model.onnx", result.state.model, task)


def test_beam_search_finds_the_best_of_all_chains_if_it_may_look_at_enough():
    state = _state()
    context = make_context(state.model, SignTask())
    error = OutputError(state.model, [inputs for inputs, _ in context.first_batches(4)])

    def of(chain):
        model = copy.deepcopy(state.model)
        arrange(model, _site("residual"), chain)
        return error.of(model)

    best = min(product(range(4), repeat=2), key=of)
    result = _apply(state, layers=2, width=20)
    assert result.facts["error of the outputs"] == pytest.approx(of(best))
    assert result.changes[0].note == f"{'-'.join(map(str, best))} of the layers 0 to 3"
    tree = _apply(state, layers=2, search="tree")
    assert tree.facts["error of the outputs"] <= result.facts["error of evenly spaced layers (0-3)"]


@pytest.mark.parametrize("search", ["beam", "tree"])
def test_moves_and_trials_bound_the_search(search):
    state = _state(lambda: Residual(5))
    for moves in (("skip",), ("skip", "repeat"), ("skip", "swap")):
        chain = [
            int(part) for part in _apply(state, layers=3, search=search, moves=moves).changes[0].note[:5].split("-")
        ]
        assert "swap" in moves or chain == sorted(chain)
        assert "repeat" in moves or len(set(chain)) == len(chain)
    assert _apply(state, layers=3, search=search, trials=4).facts["chains measured"] <= 4
    again = [_apply(state, layers=3, search=search, seed=1).changes[0].note for _ in range(2)]
    assert again[0] == again[1]


@pytest.mark.parametrize("kind", ["residual", "encoder", "lstm", "bert"])
def test_a_repeated_layer_is_stored_once_and_trained_as_one(kind, tmp_path):
    state = _state(kind)
    model = copy.deepcopy(state.model)
    arrange(model, _site(kind), (0, 1, 1))
    two = copy.deepcopy(state.model)
    arrange(two, _site(kind), (0, 1))
    assert _distinct(model) == _distinct(two)
    record = _site(kind).record((0, 1, 1))
    trained = Retrain().apply(State(model, {}, (record,)), make_context(state.model, SignTask())).state
    assert _distinct(trained.model) == _distinct(two)
    checkpoint.save(tmp_path, trained.model, trained.structure)
    task = SignTask()
    task.model = MODELS[kind]
    loaded = checkpoint.load(tmp_path, task)
    assert same(weights(loaded), weights(trained.model))
    assert _distinct(loaded) == _distinct(two)
    numbers = RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)
    sizes = []
    for name, each in (("three", trained.model), ("two", two)):
        export(Job(each.eval(), numbers, tmp_path / f"{name}.onnx", Options()))
        check_file(tmp_path / f"{name}.onnx", each, numbers)
        sizes.append((tmp_path / f"{name}.onnx").stat().st_size)
    layer = (_distinct(state.model) - _distinct(two)) / 2
    assert sizes[0] - sizes[1] < 2.5 * layer  # of 4 bytes a weight: nodes, but no second copy


def test_each_place_of_a_looped_layer_has_states_of_its_own(tmp_path):
    model = _state("lstm").model
    arrange(model, _site("lstm"), (0, 1, 1, 2))
    states = model.rnn(_inputs())[1]
    assert states[0].shape[0] == 4
    assert not states[0][1].equal(states[0][2])
    cells = nn.ModuleList(nn.GRU(WIDTH, WIDTH, batch_first=True) for _ in range(3))

    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.cells, self.head = nn.Linear(CHANNELS, WIDTH), cells, nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            x = self.enter(x)
            for cell in self.cells:
                x = x + cell(x)[0]
            return self.head(x)

    looped = Cells().eval()
    arrange(looped, Site("cells", 0, 3), (0, 1, 1))
    task = RandomTask(SEQUENCES, {"y": {0: "batch", 1: "time"}}, normal(CHANNELS), max_length=9)
    export(Job(looped, task, tmp_path / "model.onnx", Options(stream=True)))  # refuses a step that differs
    check_file(tmp_path / "model.step.onnx", looped, task)


def test_numbers_that_layers_keep_for_their_caches_follow():
    class Numbered(Block):
        def __init__(self, number):
            super().__init__()
            self.layer_idx = number

    model = Residual(3)
    model.blocks = nn.ModuleList(Numbered(number) for number in range(3))
    arrange(model, Site("blocks", 0, 3), (0, 2, 2))
    assert [block.layer_idx for block in model.blocks] == [0, 1, 2]
    assert model.blocks[1].linear.weight is model.blocks[2].linear.weight


def test_masks_go_along():
    state = _state()
    context = make_context(state.model, SignTask())
    pruned = Magnitude(prune="weights", sparsity=0.5, targets=("blocks.*",)).apply(state, context).state
    done = _apply(pruned, layers=2).state
    assert set(done.masks) == {"blocks.0.linear.weight", "blocks.1.linear.weight"}
    assert all(not done.model.get_parameter(name)[~mask].any() for name, mask in done.masks.items())


def test_after_units_were_pruned_and_before_layers_are_tied():
    state = _state("encoder")
    context = make_context(state.model, SignTask())
    units = Magnitude(prune="units", ratio=0.5, targets=("encoder.layers.2.linear1",), compensate=False)
    pruned = units.apply(state, context).state
    fewer = _apply(pruned, layers=3).state
    tied = TieLayers().apply(fewer, context).state
    rebuilt = rebuilt_from(tied, Encoding())
    assert rebuilt.eval()(_inputs()).equal(tied.model(_inputs()))
    assert _distinct(rebuilt) == _distinct(tied.model) < _distinct(fewer.model)


def test_units_of_an_uneven_recurrent_module_and_one_module_in_several_places():
    state = _state("lstm")
    units = Magnitude(prune="units", ratio=0.5, scope="global", compensate=False)
    uneven = units.apply(state, make_context(state.model, SignTask())).state
    with pytest.raises(MethodError, match="could be left out"):
        _apply(uneven, layers=2)
    looped = _state(Residual)
    looped.model.blocks = nn.ModuleList([Block()] * 4)
    done = _apply(looped, layers=2)
    assert len(done.state.model.blocks) == 2
    assert done.facts["layers after"] == 2.0


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("norms", "something else computes between `blocks.0` and `blocks.1`"),
        ("scales", "something else computes between `blocks.0` and `blocks.1`"),
    ],
)
def test_what_belongs_to_a_place_is_seen(way, reason):
    with pytest.raises(MethodError) as caught:
        DepthSearch(layers=2).check_task(_state(lambda: Residual(way=way)).model, SignTask())
    assert reason in caught.value.message


def test_layers_of_other_shapes_and_other_arguments_are_not_in_a_chain():
    class Funnel(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(CHANNELS, 8), nn.Linear(8, 4), nn.Linear(4, CLASSES)])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x[:, -1]

    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Bilinear(CHANNELS, CHANNELS, CHANNELS) for _ in range(3))
            self.biases = nn.Parameter(torch.rand(3, CHANNELS))

        def forward(self, x):
            for number, block in enumerate(self.blocks):
                x = block(x, self.biases[number].expand_as(x))
            return x[:, -1, :CLASSES]

    for model, reason in [
        (Funnel(), "what leaves `layers.0` has not the shape of what enters it"),
        (Told(), "`blocks.0` and `blocks.1` are given different further arguments"),
        (nn.Sequential(nn.Linear(CHANNELS, CLASSES)), "no list of layers"),
    ]:
        with pytest.raises(MethodError) as caught:
            DepthSearch(layers=1).check_task(model.eval(), SignTask())
        assert reason in caught.value.message


def test_of_two_stacks_one_is_named():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Residual(), Stacked()
            self.second.rnn = nn.LSTM(WIDTH, WIDTH, 3, batch_first=True)

        def forward(self, x):
            x = self.first.enter(x)
            for block in self.first.blocks:
                x = block(x)
            return self.second.head(self.second.rnn(x)[0][:, -1])

    state = _state(Two)
    with pytest.raises(MethodError, match="the model has 2 stacks") as caught:
        _apply(state, layers=2)
    assert caught.value.hint == "give `target`, one of `first.blocks`, `second.rnn`"
    done = _apply(state, layers=2, target="second.*")
    assert done.state.model.second.rnn.num_layers == 2
    assert len(done.state.model.first.blocks) == 4
    assert [skip.name for skip in done.skipped] == ["first.blocks"]
    with pytest.raises(MethodError, match="`target: third` fits 0 stacks"):
        _apply(state, layers=2, target="third")


def test_a_model_that_counts_its_layers_is_refused():
    class Counting(Residual):
        def forward(self, x):
            x = self.enter(x)
            for number in range(4):
                x = self.blocks[number](x)
            return self.head(x[:, -1])

    with pytest.raises(MethodError, match="cannot run as") as caught:
        _apply(_state(Counting), layers=2)
    assert "for layer in self.layers" in caught.value.hint


def test_states_that_the_model_gives_out_keep_their_number_or_the_step_is_refused():
    class Stateful(Stacked):
        def forward(self, x):
            return self.head(self.rnn(x)[1][0].transpose(0, 1)[:, [0, 3]].mean(1))

    with pytest.raises(MethodError, match="cannot run as"):
        _apply(_state(Stateful), layers=2)


def test_budgets_and_options_that_are_none_are_refused():
    with pytest.raises(MethodError, match="`blocks` has 4 layers and may keep 4, so nothing would change") as caught:
        _apply(_state(), layers=4)
    assert caught.value.hint == "set `layers` to 3 or less"
    for options, text in [({"moves": ("swap",)}, "needs `skip`"), ({"search": "tree", "width": 2}, "has no effect")]:
        with pytest.raises(ValidationError, match=text):
            DepthSearch(layers=1, **options)


def test_by_the_metric_the_task_is_asked():
    state = _state()
    task = SignTask()
    done = DepthSearch(layers=3, by="metric", trials=12).apply(state, make_context(state.model, task))
    assert done.facts["layers after"] == 3.0
    assert done.facts["chains measured"] <= 12.0


def test_the_controls_are_the_other_search_and_none():
    state = _state()
    assert DepthSearch(layers=2).controls() == {}
    controls = DepthSearch(layers=2, compare=True).controls()
    assert list(controls) == ["tree", "evenly spaced"]
    context = make_context(state.model, SignTask())
    assert controls["evenly spaced"](state, context).changes[0].note.startswith("0-3 of")


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        ([0, 9], "in an order"),
        ([1, 0], "in an order"),
        ([], "not valid"),
        ([True], "not valid"),
        (None, "not valid"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(chain, text):
    record = {"kind": "chain", "module": "rnn", "first": 0, "count": 4, "chain": chain}
    with pytest.raises(CheckpointError, match=text):
        rebuild(Stacked(), [record])


def test_the_word_is_known():
    assert METHODS["depth_search"] is DepthSearch


@pytest.mark.parametrize("kind", ["residual", "gru"])
def test_the_first_layers_may_stay_without_a_search(kind):
    result = _apply(_state(kind), layers=2, search="first")
    assert result.changes[0].note == "0-1 of the layers 0 to 3"
    assert result.facts["chains measured"] == 0
    assert list(DepthSearch(layers=2, search="first", compare=True).controls()) == ["beam", "evenly spaced"]
