"""Tables of a study that are right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.nn.graphs.properties import properties
from compressor.nn.graphs.random_graphs import barabasi_albert, watts_strogatz
from compressor.studies.graphs.analysis import FOLDS, correlations, predictors, summaries
from compressor.studies.graphs.facts import Results, Row, Study


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
    found = summaries(results_of(metrics))
    for kind, values in (("ba", metrics[::2]), ("ws", metrics[1::2])):
        summary = found[kind]
        sd = np.std(values, ddof=1) if len(values) > 1 else 0.0
        expected = [len(values), np.mean(values), np.median(values), sd, min(values), max(values)]
        got = [summary.count, summary.mean, summary.median, summary.sd, summary.least, summary.largest]
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_a_failed_row_counts_nowhere():
    results = results_of([0.5, 0.25, None, None, 0.75])
    assert [summary.count for summary in summaries(results).values()] == [1, 2]
    assert len(results.metrics()) == 3


def test_correlations_are_scipys_and_none_where_a_property_is_constant():
    from scipy.stats import pearsonr

    results = results_of(np.random.default_rng(0).random(17).round(3).tolist())
    found = correlations(results.rows)
    assert len(found) == 23
    for name, value in found.items():
        column = [row.properties[name] for row in results.rows]
        assert value == pytest.approx(pearsonr(column, [row.metric for row in results.rows])[0], abs=1e-9)
    assert correlations([row for row in results.rows if row.kind == "ba"])["source_nodes"] is None
    assert set(correlations(results_of([0.5] * 5).rows).values()) == {None}


def naive_r2(regressor, features, metrics, repeats):
    """Over repeats, the features scaled by hand inside each fold."""
    from sklearn.model_selection import KFold

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
    from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
    from sklearn.linear_model import BayesianRidge

    results = results_of([0.25 + 0.01 * (index % 7) + 0.02 * (index % 3) for index in range(13)], seed=3)
    features = np.array([list(row.properties.values()) for row in results.rows])
    metrics = np.array([row.metric for row in results.rows])
    regressors = {
        "random forest": RandomForestRegressor(random_state=3),
        "Bayesian ridge": BayesianRidge(),
        "AdaBoost": AdaBoostRegressor(random_state=3),
    }
    for part in predictors(results, repeats=2):
        assert (part.r2, part.sd) == pytest.approx(naive_r2(regressors[part.name], features, metrics, 2), abs=1e-6)


@pytest.mark.parametrize(("metrics", "said"), [([0.1, 0.2, 0.3], "3 graphs with 3"), ([0.5] * 11, "11 graphs with 1")])
def test_predictors_are_refused_where_the_rows_say_nothing(metrics, said):
    with pytest.raises(UsageError, match=said):
        predictors(results_of(metrics))
