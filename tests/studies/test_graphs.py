"""A study of random graphs: the same rows for the same seed, resumed where it stopped, and tables that are right."""

from __future__ import annotations

import contextlib
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import pearsonr
from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
from sklearn.linear_model import BayesianRidge
from sklearn.model_selection import KFold
from torch import nn

from compressor.errors import MethodError, OutputError, TaskError, UsageError
from compressor.nn.graphs.layered import LayeredGraph
from compressor.nn.graphs.properties import properties
from compressor.nn.graphs.random_graphs import barabasi_albert, watts_strogatz
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.studies import graphs as graph_study
from compressor.studies.graphs import FOLDS, Results, Row, Study
from tests.cli.conftest import TASK, call


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "task.py"
    file.write_text(textwrap.dedent(TASK))
    return str(file)


def options(task, **changes):
    return Study(**({"task": task, "count": 2, "largest": 13, "epochs": 1} | changes))


@pytest.fixture(scope="module")
def done(task, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "results.json"
    return path, graph_study.study(options(task), path)


def timeless(rows):
    return [row.model_copy(update={"seconds": 0.0}) for row in rows]


def test_there_is_a_row_for_each_graph_of_each_kind_and_the_file_holds_them(done):
    path, results = done
    assert [(row.kind, row.index) for row in results.rows] == [("ws", 0), ("ws", 1), ("ba", 0), ("ba", 1)]
    assert Results.model_validate_json(path.read_bytes()) == results


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
    steps = [graph_study.draw(study, kind, index) for index in range(500)]
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


def test_the_same_seed_gives_the_same_rows_in_any_number_of_processes(done, task, tmp_path):
    results = graph_study.study(options(task), tmp_path / "again.json", jobs=2)
    assert timeless(results.rows) == timeless(done[1].rows)


def test_a_ray_cluster_gives_the_same_rows_and_what_a_worker_raises_arrives(task, done, tmp_path):
    results = graph_study.study(options(task), tmp_path / "ray.json", jobs=2, ray="local")
    assert timeless(results.rows) == timeless(done[1].rows)
    file = tmp_path / "broken.py"
    file.write_text(textwrap.dedent(TASK).replace("def loss(self, outputs, target):", "def loss(self):"))
    with pytest.raises(TaskError, match="`loss` of"):
        graph_study.study(options(str(file)), tmp_path / "broken.json", jobs=1, ray="local")


def test_a_cluster_that_is_not_there_is_an_error_that_says_how_to_start_one(task, tmp_path):
    with pytest.raises(UsageError, match="no Ray cluster at `auto`") as caught:
        graph_study.study(options(task), tmp_path / "none.json", ray="auto")
    assert "ray start --head" in caught.value.hint


def test_another_seed_gives_other_graphs(done, task):
    row = graph_study.train(options(task, seed=1), "ws", 0)
    assert row.graph != done[1].rows[0].graph


def test_a_study_goes_on_where_it_stopped(done, task, tmp_path):
    _, results = done
    kept = results.model_copy(update={"rows": (results.rows[0].model_copy(update={"seconds": -1.0}), results.rows[3])})
    path = tmp_path / "results.json"
    path.write_text(kept.model_dump_json())
    again = graph_study.study(options(task), path)
    assert again.rows[0].seconds == -1.0
    assert again.rows[3] == results.rows[3]
    assert timeless(again.rows) == timeless(results.rows)


class Interrupted:
    """Progress that somebody interrupts after the first graph."""

    def bar(self, description, total):
        return contextlib.nullcontext(self)

    def advance(self, amount=1, note=""):
        if note:
            raise KeyboardInterrupt


def test_what_is_done_is_kept_when_a_study_is_interrupted(done, task, tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt):
        graph_study.study(options(task), path, progress=Interrupted())
    assert timeless(Results.model_validate_json(path.read_bytes()).rows) == timeless(done[1].rows[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 3}, "has results of other arguments: count 2, here 3\nhint: repeat its arguments"),
        ({"kinds": ("ba",), "seed": 7}, "kinds ('ws', 'ba'), here ('ba',); seed 0, here 7"),
    ],
)
def test_a_file_of_other_arguments_is_refused_and_kept(done, task, change, message):
    path, _ = done
    before = path.read_bytes()
    with pytest.raises(OutputError) as caught:
        graph_study.study(options(task, **change), path)
    assert message in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_results_is_refused_and_kept(task, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(OutputError, match="is there and is not a results file"):
        graph_study.study(options(task), path)
    assert path.read_text() == "{}"


@pytest.mark.parametrize(
    "change",
    [{"smallest": 9}, {"largest": 9}, {"kinds": ()}, {"kinds": ("ws", "ws")}, {"kinds": ("er",)}, {"count": 0}],
)
def test_a_study_that_cannot_be_meant_is_refused(change):
    with pytest.raises(ValidationError):
        Study(**({"task": "task.py"} | change))


def test_a_target_that_is_not_there_is_refused_before_any_training(task, tmp_path):
    with pytest.raises(MethodError, match="`target: lstm` fits 0 recurrent layers"):
        graph_study.study(options(task, target="lstm"), tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


def test_training_that_fails_is_a_row_without_metric(task):
    broken = TASK.replace("nn.functional.cross_entropy(outputs, target)", "outputs.sum() * float('nan')")
    file = task.replace("task.py", "broken.py")
    Path(file).write_text(textwrap.dedent(broken))
    row = graph_study.train(options(file), "ws", 0)
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
        graph_study.reinitialise(model, seed)
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
        graph_study.reinitialise(model, 0)


def results_of(metrics, seed=0):
    """Rows whose graphs are real and whose metrics are given."""
    study = Study(task="task.py", count=max(1, len(metrics)), seed=seed)
    rows = []
    for index, metric in enumerate(metrics):
        graph = (
            watts_strogatz(10 + index % 7, 4, 1.0, index) if index % 2 else barabasi_albert(10 + index % 5, 2, index)
        )
        rows.append(
            Row(
                kind="ws" if index % 2 else "ba",
                index=index,
                graph=graph.record(),
                properties=properties(graph),
                parameters=3,
                metric=metric,
                seconds=0.0,
            )
        )
    return Results(study=study, metric="accuracy", higher_is_better=True, rows=tuple(rows))


METRICS = st.lists(st.floats(0.0, 1.0).map(lambda value: round(value, 3)), min_size=2, max_size=13)


@settings(deadline=None, max_examples=25)
@given(METRICS)
def test_summaries_are_numpys(metrics):
    found = graph_study.summaries(results_of(metrics))
    for kind, values in (("ba", metrics[::2]), ("ws", metrics[1::2])):
        summary = found[kind]
        sd = np.std(values, ddof=1) if len(values) > 1 else 0.0
        expected = [len(values), np.mean(values), np.median(values), sd, min(values), max(values)]
        got = [summary.count, summary.mean, summary.median, summary.sd, summary.least, summary.largest]
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_a_failed_row_counts_nowhere():
    results = results_of([0.5, 0.25, None, None, 0.75])
    assert [summary.count for summary in graph_study.summaries(results).values()] == [1, 2]
    assert len(results.metrics()) == 3


def test_correlations_are_scipys_and_none_where_a_property_is_constant():
    results = results_of(np.random.default_rng(0).random(17).round(3).tolist())
    found = graph_study.correlations(results.rows)
    assert len(found) == 23
    for name, value in found.items():
        column = [row.properties[name] for row in results.rows]
        assert value == pytest.approx(pearsonr(column, [row.metric for row in results.rows])[0], abs=1e-9)
    assert graph_study.correlations([row for row in results.rows if row.kind == "ba"])["source_nodes"] is None
    assert set(graph_study.correlations(results_of([0.5] * 5).rows).values()) == {None}


def naive_r2(regressor, features, metrics, repeats):
    """Over repeats, the features scaled by hand inside each fold."""
    scores = []
    for repeat in range(repeats):
        predicted = np.zeros(len(metrics))
        for train, test in KFold(FOLDS, shuffle=True, random_state=repeat).split(features):
            low, span = features[train].min(0), np.ptp(features[train], 0)
            scaled = (features - low) / np.where(span == 0, 1.0, span)
            predicted[test] = regressor.fit(scaled[train], metrics[train]).predict(scaled[test])
        scores.append(1 - ((metrics - predicted) ** 2).sum() / ((metrics - metrics.mean()) ** 2).sum())
    return np.mean(scores), np.std(scores, ddof=1)


def test_predictors_are_scored_as_by_hand_with_the_scaling_inside_the_fold():
    results = results_of([0.25 + 0.01 * (index % 7) + 0.02 * (index % 3) for index in range(13)], seed=3)
    features = np.array([list(row.properties.values()) for row in results.rows])
    metrics = np.array([row.metric for row in results.rows])
    regressors = {
        "random forest": RandomForestRegressor(random_state=3),
        "Bayesian ridge": BayesianRidge(),
        "AdaBoost": AdaBoostRegressor(random_state=3),
    }
    for part in graph_study.predictors(results, repeats=2):
        assert (part.r2, part.sd) == pytest.approx(naive_r2(regressors[part.name], features, metrics, 2), abs=1e-6)


@pytest.mark.parametrize(("metrics", "said"), [([0.1, 0.2, 0.3], "3 graphs with 3"), ([0.5] * 11, "11 graphs with 1")])
def test_predictors_are_refused_where_the_rows_say_nothing(metrics, said):
    with pytest.raises(UsageError, match=said):
        graph_study.predictors(results_of(metrics))


def test_the_command_prints_the_tables_and_goes_on_with_the_file(done, task):
    path, results = done
    arguments = ["graphs", "study", "--task", task, "--out", path, "--count", 2, "--nodes", "10..13", "--epochs", 1]
    shown = call(*arguments)
    assert shown.code == 0
    assert shown.out.startswith("accuracy after 1 epochs from random weights\n")
    assert "Watts–Strogatz" in shown.out
    assert "source_nodes" in shown.out
    assert "no predictors: 4 graphs" in shown.err
    facts = json.loads(call(*arguments, "--json").out)
    assert facts["rows"] == results.model_dump(mode="json")["rows"]
    assert set(facts["correlations"]) == {"all", "ws", "ba"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "10-50"], "error: --nodes takes two whole numbers, not `10-50`\nhint: such as --nodes 10..50\n"),
        (["--nodes", "5..50"], "error: the least of --nodes: input should be greater than or equal to 10\n"),
        (["--nodes", "30..20"], "error: the largest number of nodes, 20, is below the smallest, 30\n"),
        (["--kind", "er"], "error: --kind: input should be 'ws' or 'ba'\n"),
    ],
)
def test_the_command_says_what_is_wrong(task, tmp_path, arguments, message):
    result = call("graphs", "study", "--task", task, "--out", tmp_path / "results.json", *arguments)
    assert (result.code, result.err) == (2, message)
