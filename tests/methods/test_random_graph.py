"""`random_graph` replaces a recurrent layer by a stack on a random graph, and refuses where it cannot."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import compressor
from compressor.errors import MethodError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.random_graph import RandomGraph
from compressor.methods.retrain import Retrain
from compressor.nn.graphs.properties import properties
from compressor.nn.graphs.random_graphs import barabasi_albert, erdos_renyi, watts_strogatz
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.graph_layout import parameter_count
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.pipeline.run import run
from compressor.recipe import load
from compressor.report import Report
from tests.exporters.agreement import assert_agrees
from tests.folders import recipe_of, rehearsed
from tests.methods.conftest import CHANNELS, CLASSES, HIDDEN, LENGTH, SignTask, Tagger, make_context, same, weights
from tests.methods.signs import signs
from tests.surgery.rebuilding import rebuilt_from

SMALL_WORLD = {"graph": "watts_strogatz", "nodes": 11, "neighbours": 4, "units_per_node": 2}


def replace(state, context, **options):
    return RandomGraph(**(SMALL_WORLD | options)).apply(state, context)


def counted(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_it_is_a_recipe_word():
    assert METHODS["random_graph"] is RandomGraph


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_layer_becomes_a_stack_on_the_graph_with_a_readout_to_its_size(kind):
    model = Tagger(kind=kind)
    result = replace(State(model), make_context(model, SignTask(), seed=5))
    graph = watts_strogatz(11, 4, 1.0, seed=5)
    layer = result.state.model.rnn
    assert layer.stack.graph == graph
    assert layer.stack.cell == ("rnn_tanh" if kind is nn.RNN else kind.__name__.lower())
    assert (layer.readout.in_features, layer.readout.out_features) == (2 * len(graph.layers[-1]), HIDDEN)
    assert result.state.model.head.weight.equal(model.head.weight)
    assert result.state.model(torch.randn(3, 11, CHANNELS)).shape == (3, CLASSES)


def test_the_change_tells_the_parameters_before_and_after(state, context):
    (change,) = replace(state, context).changes
    graph = watts_strogatz(11, 4, 1.0, seed=0)
    width = 2 * len(graph.layers[-1])
    assert (change.name, change.action) == ("rnn", "replaced")
    assert change.parameters_before == change.nonzeros_before == counted(state.model.rnn)
    assert change.parameters_after == parameter_count(graph, "gru", CHANNELS, 2) + HIDDEN * (width + 1)
    assert f"readout {width} -> {HIDDEN}" in change.note


def test_the_model_that_went_in_stays_as_it_was(state, context):
    before = weights(state.model)
    replace(state, context)
    assert same(weights(state.model), before)


def test_there_is_no_readout_where_the_last_layer_has_the_original_size(state, context):
    graph = erdos_renyi(4, 0.5, seed=0)
    result = replace(state, context, graph="erdos_renyi", nodes=4, neighbours=None, probability=0.5, units_per_node=7)
    assert len(graph.layers[-1]) == 1
    assert result.state.model.rnn.readout is None


@pytest.mark.parametrize("repeated_rows", [False, True])
def test_masks_hold_just_the_zeros_of_the_graph(state, context, repeated_rows):
    after = replace(state, context, repeated_rows=repeated_rows).state
    zeros = {name: parameter != 0 for name, parameter in after.model.rnn.stack.named_parameters()}
    expected = {f"rnn.stack.{name}": kept for name, kept in zeros.items() if not kept.all()}
    assert same(dict(after.masks), expected)


def test_masks_of_the_old_layer_go_and_those_of_others_stay(model, context):
    masks = {name: torch.ones_like(model.get_parameter(name)).bool() for name in ("rnn.weight_hh_l0", "head.weight")}
    after = replace(State(model, masks), context).state
    assert "head.weight" in after.masks
    assert "rnn.weight_hh_l0" not in after.masks


@pytest.mark.parametrize(
    ("options", "graph"),
    [
        ({}, watts_strogatz(11, 4, 1.0, 3)),
        ({"rewiring": 0.25, "graph_seed": 17}, watts_strogatz(11, 4, 0.25, 17)),
        ({"graph": "barabasi_albert", "neighbours": None, "attachments": 3}, barabasi_albert(11, 3, 3)),
        ({"graph": "erdos_renyi", "neighbours": None, "probability": 0.3}, erdos_renyi(11, 0.3, 3)),
    ],
)
def test_the_facts_are_the_23_properties_of_the_graph_drawn_from_the_seed(model, task, options, graph):
    result = replace(State(model), make_context(model, task, seed=3), **options)
    assert result.state.model.rnn.stack.graph == graph
    assert result.facts == properties(graph)
    assert len(result.facts) == 23


def test_weights_come_of_the_recipes_seed_and_the_graph_of_its_own(model, task):
    first, second, third = (
        replace(State(model), make_context(model, task, seed=seed), graph_seed=1).state.model for seed in (2, 2, 3)
    )
    assert first.rnn.stack.graph == third.rnn.stack.graph
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(third))


def test_torchs_own_generator_is_left_as_it_was(state, context):
    before = torch.random.get_rng_state()
    replace(state, context)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_record_gives_the_users_own_class_the_same_structure(state, context):
    after = replace(state, context, skips="full_layers").state
    rebuilt = rebuilt_from(after, Tagger()).eval()
    x = torch.randn(3, 11, CHANNELS)
    assert torch.equal(rebuilt(x), after.model(x))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.GRU(CHANNELS, HIDDEN, batch_first=True)
        self.second = nn.LSTM(HIDDEN, 11, num_layers=2, dropout=0.25, batch_first=True)

    def forward(self, x):
        self.first.flatten_parameters()
        return self.second(self.first(x)[0])[0][:, -1]


@pytest.mark.parametrize("target", ["second", "sec*", "re:s.*"])
def test_the_target_is_named_and_the_other_layer_is_listed_as_skipped(context, target):
    result = replace(State(Two()), context, target=target)
    assert isinstance(result.state.model.second, RecurrentStack)
    assert [(skip.name, skip.reason) for skip in result.skipped] == [("first", "not the layer that `target` names")]
    assert "The dropout of 0.25" in result.notes[1]


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (nn.Linear(3, 5), None, "the model has no nn.RNN, nn.GRU or nn.LSTM"),
        (
            Two(),
            None,
            "the model has 2 recurrent layers, and one is replaced\nhint: give `target`, one of `first`, `sec",
        ),
        (Two(), "*", "`target: *` fits 2 recurrent layers"),
        (Two(), "third", "`target: third` fits 0 recurrent layers"),
        (nn.GRU(3, 5), None, "the model itself is the recurrent layer"),
        (nn.Sequential(nn.GRU(3, 5, bidirectional=True)), None, "`0` is bidirectional, and a stack on a graph"),
    ],
)
def test_models_without_the_one_layer_are_refused_before_any_work(model, target, message):
    with pytest.raises(MethodError) as caught:
        RandomGraph(**SMALL_WORLD, target=target).check(model)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"neighbours": None}, "`graph: watts_strogatz` needs `neighbours`"),
        ({"graph": "barabasi_albert", "attachments": 2}, "`neighbours` belongs to `graph: watts_strogatz`, not to"),
        ({"graph": "barabasi_albert", "neighbours": None}, "`graph: barabasi_albert` needs `attachments`"),
        ({"graph": "erdos_renyi", "neighbours": None}, "`graph: erdos_renyi` needs `probability`"),
        ({"probability": 0.5}, "`probability` belongs to `graph: erdos_renyi`, not to `graph: watts_strogatz`"),
        ({"neighbours": 11}, "`neighbours` is 11; it has to be below `nodes`, which is 11"),
        (
            {"graph": "erdos_renyi", "neighbours": None, "probability": 0.5, "rewiring": 0.5},
            "`rewiring` belongs to `graph: watts_strogatz`",
        ),
        ({"target": "re:("}, "is not a regular expression"),
        ({"nodes": 1}, "greater than or equal to 2"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(ValidationError) as caught:
        RandomGraph(**(SMALL_WORLD | change))
    assert message in str(caught.value)


class User(nn.Module):
    """A model that does something of its own with a recurrent layer."""

    def __init__(self, use):
        super().__init__()
        self.rnn = nn.LSTM(CHANNELS, HIDDEN, batch_first=True)
        self.use = use

    def forward(self, x):
        return self.use(self.rnn, x)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda rnn, x: rnn(x)[1][0], "the model reads the last states (`h_n`, `c_n`) of the layer, part 0"),
        (lambda rnn, x: [h for h, c in [rnn(x)[1]]], "their parts one by one"),
        (lambda rnn, x: len(rnn(x)[1]), "their number"),
        (lambda rnn, x: rnn(x)[1] or x, "their truth"),
        (lambda rnn, x: rnn(x)[1].shape, "their `shape`"),
        (lambda rnn, x: torch.cat([x, rnn(x)[1]]), "them in `cat`"),
        (lambda rnn, x: rnn(x)[1] + 1, "them in `add`"),
        (lambda rnn, x: rnn(x), "the model gives out its last states"),
        (lambda rnn, x: rnn(x, (torch.zeros(1, len(x), 7),) * 2), "the model gives the layer an initial state"),
        (lambda rnn, x: rnn(pack_sequence(list(x))), "the model gives the layer a packed sequence"),
        (lambda rnn, x: rnn(x[0])[0], "the model gives the layer a tensor of 2 axes"),
        (lambda rnn, x: rnn.weight_hh_l0, "raises AttributeError"),
    ],
)
def test_a_use_that_a_stack_on_a_graph_does_not_serve_is_refused_in_the_step(context, use, message):
    model = User(use)
    before = weights(model)
    with pytest.raises(MethodError) as caught:
        replace(State(model), context)
    assert str(caught.value).startswith("error: `rnn` cannot be replaced: ")
    assert message in caught.value.message
    assert caught.value.hint
    assert same(weights(model), before)
    assert type(model.rnn) is nn.LSTM


def test_states_that_are_not_used_are_no_obstacle(context):
    def use(rnn, x):
        output, state = rnn(x)
        return output if state is not None else x

    assert replace(State(User(use)), context).state.model(torch.ones(2, 3, CHANNELS)).shape == (2, 3, HIDDEN)


def test_retraining_with_distillation_keeps_the_zeros_exactly_and_trains_the_rest(state, context):
    first = replace(state, context, graph_seed=1).state  # of 0, one node leads nowhere, so that its skips learn nothing
    step = Retrain(epochs=2, lr=0.01, distill=True, distill_hidden=("rnn",))
    after = step.apply(first, context).state
    old = dict(first.model.named_parameters())
    for name, parameter in after.model.rnn.named_parameters():
        kept = after.masks.get(f"rnn.{name}", torch.ones_like(parameter).bool())
        assert not parameter[~kept].any()
        assert not torch.equal(parameter, old[f"rnn.{name}"])


def test_the_control_is_a_dense_stack_of_the_same_cell_and_number_of_layers(state, context):
    result = replace(state, context)
    control = RandomGraph(**SMALL_WORLD).controls()["dense"](state, context)
    stack = control.state.model.rnn.stack
    wanted = counted(result.state.model.rnn)
    assert (stack.mode, stack.num_layers, control.state.masks) == ("GRU", 2, {})
    assert counted(control.state.model.rnn) == pytest.approx(wanted, rel=0.05)
    rebuilt = rebuilt_from(control.state, Tagger()).eval()
    x = torch.randn(3, 11, CHANNELS)
    assert torch.equal(rebuilt(x), control.state.model(x))


def test_the_control_can_be_left_out():
    assert RandomGraph(**SMALL_WORLD, compare=False).controls() == {}


NET = """
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(5, 13, num_layers=2, batch_first=True)
            self.head = nn.Linear(13, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])
"""
RECIPE = recipe_of(
    "{method: random_graph, graph: barabasi_albert, nodes: 7, attachments: 2, units_per_node: 3}",
    "{method: retrain, epochs: 2, lr: 1e-2, distill: true}",
    seed=3,
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return rehearsed(tmp_path_factory.mktemp("random_graph"), signs(NET), RECIPE)


def test_the_exported_file_agrees_with_the_loaded_model_at_an_unseen_batch_and_length(done):
    out, task, report = done
    inputs = task.example(7, 23)
    loaded = compressor.load(out, task)
    assert isinstance(loaded.rnn.stack, GraphRecurrent)
    assert_agrees(out / "model.onnx", loaded, *inputs)
    assert report.compressed[0].artifact.parity.passed


def test_the_loaded_model_is_bit_equal_and_its_zeros_are_zeros(done):
    from safetensors.torch import load_file

    out, task, _ = done
    loaded = compressor.load(out, task)
    stored = load_file(out / "model.safetensors")
    assert same(weights(loaded), stored)
    for name, mask in loaded.rnn.stack.masks().items():
        assert not stored[f"rnn.stack.{name}"][~mask].any()


def test_the_report_has_the_properties_and_the_dense_stack_beside(done):
    out, _, report = done
    step = report.steps[0]
    assert step.facts == properties(barabasi_albert(7, 2, 3))
    (dense,) = step.beside
    assert (dense.name, dense.note) == ("dense", "")
    assert dense.parameters == pytest.approx(step.parameters, rel=0.1)
    assert Report.from_json((out / "report.json").read_text()) == report
    assert "| nodes_betweenness_mean |" in (out / "report.md").read_text().replace("\\_", "_")


def test_the_report_has_a_probe_of_what_the_step_converts(done):
    out, _, report = done
    (probe,) = report.steps[0].probes
    assert (probe.modules, probe.original, probe.converted, probe.seeds) == (("rnn",), "LSTM", "LSTM on a graph", 1)
    assert [result.trained.length for result in probe.results] == [12, 16, 32]
    assert report.steps[1].probes == ()
    assert "→ LSTM on a graph" in (out / "report.md").read_text()


def test_a_run_that_is_not_to_probe_says_which_layer_was_converted(done, tmp_path):
    _, task, _ = done
    recipe = load(str(done[0].parent / "recipe.yaml"), ["steps.0.compare=false"])
    report = run(recipe, task, tmp_path / "run", quick=True, device="cpu", probes=False)
    assert report.steps[0].probes == ()
    assert [(skip.name, skip.reason) for skip in report.steps[0].unprobed] == [("rnn", "skipped by `--no-probe`")]


def test_on_an_accelerator_the_same_weights_are_drawn(accelerator):
    model = Tagger().eval()
    on_cpu = replace(State(model), make_context(model, SignTask()))
    on_gpu = replace(State(model.to(accelerator)), make_context(model.to(accelerator), SignTask(), device=accelerator))
    assert all(parameter.device.type == accelerator.type for parameter in on_gpu.state.model.parameters())
    assert same(weights(on_gpu.state.model.rnn.cpu()), weights(on_cpu.state.model.rnn))
    on_gpu.state.model.to(accelerator)(torch.ones(2, LENGTH, CHANNELS, device=accelerator))
