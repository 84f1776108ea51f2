"""One network on a graph: its graph, its size, and its random weights."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.properties import properties
from compressor.nn.graphs.random_graphs import barabasi_albert, watts_strogatz
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.studies.graphs.facts import Study
from compressor.studies.graphs.training import draw, reinitialise, train
from tests.cli.conftest import TASK
from tests.studies.graphs.conftest import options


def test_a_row_has_the_properties_of_its_graph_and_the_parameters_of_the_model(done):
    _, results = done
    for row in results.rows:
        graph = LayeredGraph.from_record(row.graph)
        assert row.properties == properties(graph)
        stack = sum(parameter.numel() for parameter in GraphRecurrent("gru", 3, graph, skips="layers").parameters())
        width = len(graph.layers[-1])
        assert row.parameters == stack + (11 * (width + 1) if width != 11 else 0) + 2 * (11 + 1)
        assert 0.0 <= row.metric <= 1.0


@pytest.mark.parametrize(
    ("kind", "edges"), [("ws", lambda n: n * (n // 10)), ("ba", lambda n: (n - n // 10) * (n // 10))]
)
def test_sizes_and_parameters_of_the_graphs_are_those_of_the_paper(kind, edges):
    study = Study(task="task.py")
    steps = [draw(study, kind, index) for index in range(500)]
    assert {step.nodes for step in steps} == set(range(10, 51))
    assert len({step.graph_seed for step in steps}) == 500
    for step in steps[:7]:
        if kind == "ws":
            assert (step.neighbours, step.rewiring) == (step.nodes // 5, 1.0)
            graph = watts_strogatz(step.nodes, step.neighbours, 1.0, step.graph_seed)
            assert len(graph.edges) == step.nodes * (step.nodes // 5 // 2) == edges(step.nodes)
        else:
            graph = barabasi_albert(step.nodes, step.attachments, step.graph_seed)
            assert len(graph.edges) == edges(step.nodes)


def test_another_seed_gives_other_graphs(done, task):
    row = train(options(task, seed=1), "ws", 0)
    assert row.graph != done[1].rows[0].graph


def test_training_that_fails_is_a_row_without_metric(task):
    broken = TASK.replace("nn.functional.cross_entropy(outputs, target)", "outputs.sum() * float('nan')")
    file = task.replace("task.py", "broken.py")
    Path(file).write_text(textwrap.dedent(broken))
    row = train(options(file), "ws", 0)
    assert row.metric is None
    assert "loss" in row.note


def test_all_weights_are_drawn_anew_and_zeros_of_a_graph_stay():
    def build():
        stack = GraphRecurrent("gru", 5, watts_strogatz(11, 4, 1.0, 0))
        parts = nn.ModuleDict({"embedding": nn.Embedding(7, 5), "stack": stack, "norm": nn.LayerNorm(3)})
        parts["attention"] = nn.MultiheadAttention(6, 2)
        for parameter in parts.parameters():
            nn.init.constant_(parameter, 9.0)
        return parts

    first, second, third = build(), build(), build()
    state = torch.random.get_rng_state()
    for model, seed in ((first, 1), (second, 1), (third, 2)):
        reinitialise(model, seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any((parameter == 9.0).any() for parameter in first.parameters())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first["embedding"].weight, third["embedding"].weight)
    for name, mask in first["stack"].masks().items():
        assert torch.equal(first["stack"].get_parameter(name) != 0, mask)


def test_parameters_that_no_module_draws_are_refused():
    model = nn.Sequential(nn.Linear(3, 5))
    model[0].extra = nn.Sequential()
    model[0].extra.register_parameter("scale", nn.Parameter(torch.ones(3)))
    with pytest.raises(MethodError, match=r"`0.extra` \(Sequential\) has parameters of its own and no"):
        reinitialise(model, 0)
