"""What a study tells: the metric over the graphs, and how well properties of a graph predict it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressor.errors import UsageError
from compressor.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.progress import Progress
    from compressor.studies.graphs.facts import Results, Row

FOLDS: Final = 5
REPEATS: Final = 10
_LEAST_ROWS: Final = 2 * FOLDS
"""A fold needs two rows, or R^2 means nothing."""


@dataclass(frozen=True)
class Summary:
    """The metric over the graphs of a kind."""

    count: int
    mean: float
    median: float
    sd: float
    """Of a sample; 0 if there is one graph."""
    least: float
    largest: float


@dataclass(frozen=True)
class Predictor:
    """How well a regressor predicts the metric of a graph that it has not seen, from the 23 properties."""

    name: str
    r2: float
    """Mean over the repeats of the coefficient of determination; 0 is as good as the mean of the metric."""
    sd: float
    """Over the repeats."""


def summaries(results: Results) -> dict[str, Summary]:
    """For each kind that has rows, the metric over its graphs."""
    found: dict[str, Summary] = {}
    for kind in results.study.kinds:
        values = [row.metric for row in results.metrics(kind) if row.metric is not None]
        if values:
            sd = statistics.stdev(values) if len(values) > 1 else 0.0
            mean, median = statistics.fmean(values), statistics.median(values)
            found[kind] = Summary(len(values), mean, median, sd, min(values), max(values))
    return found


def correlations(rows: Sequence[Row]) -> dict[str, float | None]:
    """Pearson's correlation of each property with the metric; None if one of the two is constant."""
    metrics = [row.metric or 0.0 for row in rows]
    names = rows[0].properties if rows else {}
    return {name: _pearson([row.properties[name] for row in rows], metrics) for name in names}


def predictors(results: Results, *, repeats: int = REPEATS, progress: Progress | None = None) -> list[Predictor]:
    """R^2 of a random forest, Bayesian ridge and AdaBoost (scikit-learn's defaults) on graphs that they did not see.

    The rows of all kinds are dealt into 5 folds, and each fold is predicted from the other four, whose properties are
    scaled to 0..1. R^2 is taken over all rows at once (a fold in which the metrics are nearly equal has none), and the
    whole is repeated with other folds.

    Raises:
        UsageError: scikit-learn is not installed, there are fewer than 10 rows, or all metrics are equal.
    """
    rows = results.metrics()
    metrics = [row.metric for row in rows]
    if len(rows) < _LEAST_ROWS or len(set(metrics)) == 1:
        raise UsageError(
            f"{len(rows)} graphs with {len(set(metrics))} different metrics say nothing about predictors",
            hint=f"study at least {_LEAST_ROWS}",
        )
    try:
        from sklearn.ensemble import AdaBoostRegressor, RandomForestRegressor
        from sklearn.linear_model import BayesianRidge
        from sklearn.metrics import r2_score
        from sklearn.model_selection import KFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import MinMaxScaler
    except ImportError as error:
        raise UsageError(
            "predictors need scikit-learn, which is not installed", hint="pip install 'edge-compressor[graphs]'"
        ) from error
    seed = results.study.seed
    regressors = {
        "random forest": RandomForestRegressor(random_state=seed),
        "Bayesian ridge": BayesianRidge(),
        "AdaBoost": AdaBoostRegressor(random_state=seed),
    }
    features = [list(row.properties.values()) for row in rows]
    found = []
    with (progress or Silent()).bar("fitting predictors", len(regressors) * repeats) as bar:
        for name, regressor in regressors.items():
            scores = []
            for repeat in range(repeats):
                folds = KFold(FOLDS, shuffle=True, random_state=repeat)
                predicted = cross_val_predict(make_pipeline(MinMaxScaler(), regressor), features, metrics, cv=folds)
                scores.append(float(r2_score(metrics, predicted)))
                bar.advance(1, name)
            found.append(Predictor(name, statistics.fmean(scores), statistics.stdev(scores)))
    return found


def _pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Covariance over the product of the standard deviations; None if one of these is 0."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return statistics.correlation(first, second)
