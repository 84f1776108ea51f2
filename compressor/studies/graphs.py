"""How well do networks on random graphs learn a task, and do properties of the graph tell?

After Darji, "Investigating Sparsity in Recurrent Neural Networks" (arXiv 2407.20601), the experiments with randomly
structured networks and performance predictors. What differs: the task's model stays around the stack, so that its
embedding keeps its width and a readout leads from the last layer to the old size; and predictors are judged by repeated
cross-validation instead of one split.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from compressor.errors import MethodError, OutputError, UsageError
from compressor.files import write_whole, writing
from compressor.measure import accuracy, size
from compressor.measure.accuracy import torch_forward
from compressor.methods.base import Context, State
from compressor.methods.random_graph import RandomGraph
from compressor.methods.retrain import Retrain
from compressor.nn.graphs.properties import properties
from compressor.nn.recurrent.graph import GraphRecurrent, apply_masks
from compressor.progress import Silent
from compressor.report import Fact
from compressor.task import loading as tasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressor.progress import Progress
    from compressor.task.guard import GuardedTask

Kind = Literal["ws", "ba"]
KINDS: Final[dict[str, str]] = {"ws": "Watts–Strogatz", "ba": "Barabási–Albert"}
FOLDS: Final = 5
REPEATS: Final = 10
SMALLEST_NODES: Final = 10
_LEAST_ROWS: Final = 2 * FOLDS
"""A fold needs two rows, or R^2 means nothing."""


class Study(BaseModel):
    """What is studied: everything on which the rows depend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    """`FILE.py` or `FILE.py:NAME`."""
    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("ws", "ba")
    count: Annotated[int, Field(ge=1)] = 30
    """Graphs of each kind."""
    smallest: Annotated[int, Field(ge=SMALLEST_NODES)] = 10
    """Least number of nodes n. A Watts–Strogatz graph has k = floor(n / 5) and p = 1, a Barabási–Albert graph
    m = floor(n / 10), so n below 10 gives none."""
    largest: Annotated[int, Field(le=1024)] = 50
    """Largest number of nodes."""
    epochs: Annotated[int, Field(ge=1)] = 15
    target: str | None = None
    """Of `random_graph`: the recurrent layer that is replaced."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0

    @model_validator(mode="after")
    def _sizes_are_a_range(self) -> Study:
        if self.largest < self.smallest:
            raise ValueError(f"the largest number of nodes, {self.largest}, is below the smallest, {self.smallest}")
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError("a kind is there twice")
        return self


class Row(Fact):
    """One graph and what the network on it came to."""

    kind: Kind
    index: int
    """0..count - 1."""
    graph: dict[str, Any]
    """Record of the `LayeredGraph`."""
    properties: dict[str, float]
    parameters: int
    """Of the whole model."""
    metric: float | None
    """Of the task's `evaluate` after training; None where training failed."""
    seconds: float
    note: str = ""
    """Why training failed."""


class Results(Fact):
    """The results file."""

    schema_version: Literal[1] = 1
    study: Study
    metric: str
    higher_is_better: bool
    rows: tuple[Row, ...] = ()
    """In the order of the kinds and then of the indices; those of graphs that are not done yet are missing."""

    def metrics(self, kind: Kind | None = None) -> list[Row]:
        """The rows that have a metric, of one kind or of all."""
        return [row for row in self.rows if row.metric is not None and kind in (None, row.kind)]


@dataclass(frozen=True)
class Summary:
    """The metric over the graphs of a kind."""

    count: int
    mean: float
    median: float
    sd: float
    """Of a sample; 0 where there is one graph."""
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


def study(
    options: Study, path: Path, *, jobs: int = 1, ray: str | None = None, progress: Progress | None = None
) -> Results:
    """Train the networks that are missing in the file at `path`, which is written anew after each of them.

    Args:
        options: What is studied.
        path: The results file; made where there is none.
        jobs: Number of processes, each with one thread of PyTorch. The rows do not depend on it.
        ray: Address of a Ray cluster that trains instead: `HOST:PORT`, `auto` for the one of this machine, or `local`
            for one that is started here with `jobs` processors. Every machine of it needs this package and the task's
            file and data at the same paths.
        progress: Where progress is told.

    Raises:
        OutputError: The file has results of other options, cannot be read or cannot be written.
        UsageError: Ray is not installed, or there is no cluster at the address.
        CompressorError: What the task or `random_graph` raise.
    """
    task = tasks.load(options.task)
    results = read(path, options)
    if results is None:
        _refuse_unfit(options, task.model())
        results = Results(study=options, metric=task.metric, higher_is_better=task.higher_is_better)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    done = {(row.kind, row.index) for row in results.rows}
    missing = [(kind, i) for i in range(options.count) for kind in options.kinds if (kind, i) not in done]
    with (progress or Silent()).bar("training on graphs", options.count * len(options.kinds)) as bar:
        bar.advance(len(done))
        for row in _rows(options, missing, jobs) if ray is None else _rows_on_ray(options, missing, jobs, ray):
            results = _with_row(results, row)
            write_whole(path, (results.model_dump_json(indent=2) + "\n").encode())
            bar.advance(1, f"{row.kind} {row.index}: {'failed' if row.metric is None else f'{row.metric:.4g}'}")
    return results


def read(path: Path, options: Study) -> Results | None:
    """The results so far; None where there is no file.

    Raises:
        OutputError: It is not a results file, or one of other options.
    """
    if not path.exists():
        return None
    try:
        results = Results.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise OutputError(
            f"{path} is there and is not a results file of this version", hint="choose another --out, or move it away"
        ) from error
    before, now = results.study.model_dump(), options.model_dump()
    other = [f"{name} {before[name]}, here {now[name]}" for name in now if before[name] != now[name]]
    if other:
        raise OutputError(
            f"{path} has results of other arguments: {'; '.join(other)}",
            hint="repeat its arguments to go on with it, or choose another --out",
        )
    return results


def draw(options: Study, kind: Kind, index: int) -> RandomGraph:
    """The step that puts graph `index` of a kind into the model; it depends on nothing but the seed and these two."""
    random = Random(_seed(options, kind, index))
    nodes = options.smallest + int(random.random() * (options.largest - options.smallest + 1))
    common: dict[str, Any] = {
        "nodes": nodes,
        "target": options.target,
        "graph_seed": int(random.random() * 2**32),
        "skips": "layers",  # as in the paper
        "compare": False,
    }
    if kind == "ws":
        return RandomGraph(graph="watts_strogatz", neighbours=nodes // 5, rewiring=1.0, **common)
    return RandomGraph(graph="barabasi_albert", attachments=nodes // 10, **common)


def train(options: Study, kind: Kind, index: int) -> Row:
    """Lay the task's model out on a graph, draw all its weights anew, train it on labels and evaluate it."""
    started = time.perf_counter()
    task, cpu = _task(options.task), torch.device("cpu")
    original = task.model()
    seed = _seed(options, kind, index)
    context = Context(task, original, cpu, torch.Generator().manual_seed(seed), Silent())
    state = draw(options, kind, index).apply(State(original), context).state
    reinitialise(state.model, seed)
    metric, note = None, ""
    try:
        trained = Retrain(epochs=options.epochs).apply(state, context).state.model
        metric = accuracy.score(task, torch_forward(trained, cpu)).value
    except MethodError as error:  # it diverged, which is a result
        note = error.message
    graph = next(module.graph for module in state.model.modules() if isinstance(module, GraphRecurrent))
    return Row(
        kind=kind,
        index=index,
        graph=graph.record(),
        properties=properties(graph),
        parameters=size.count(state.model)[0],
        metric=metric,
        seconds=time.perf_counter() - started,
        note=note,
    )


def reinitialise(model: nn.Module, seed: int) -> None:
    """Draw all weights anew, as the modules' `reset_parameters` do, in place; zeros of graphs stay zeros.

    Raises:
        MethodError: A module has parameters or buffers of its own and no `reset_parameters`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, module in model.named_modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if reset is not None:
                reset()
            elif any(True for _ in module.parameters(recurse=False)):
                raise MethodError(
                    f"`{name or 'the model'}` ({type(module).__name__}) has parameters of its own and no "
                    "`reset_parameters`, so it cannot start from random weights",
                    hint="give the class a method `reset_parameters` that draws them",
                )
        apply_masks(model)  # a stack is reset before its layers, which know nothing of zeros


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
    """Pearson's correlation of each property with the metric; None where one of the two is constant."""
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


def _rows(options: Study, missing: Sequence[tuple[Kind, int]], jobs: int) -> Iterator[Row]:
    """The missing rows as they get done."""
    if jobs == 1 or len(missing) < 2:
        with _one_thread():
            for kind, index in missing:
                yield train(options, kind, index)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(missing)), mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        for future in as_completed([pool.submit(train, options, kind, index) for kind, index in missing]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _rows_on_ray(options: Study, missing: Sequence[tuple[Kind, int]], jobs: int, address: str) -> Iterator[Row]:
    """The missing rows as the machines of a Ray cluster get them done."""
    if not missing:
        return
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--ray needs Ray, which is not installed", hint="pip install 'edge-compressor[ray]'"
        ) from error
    own: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"there is no Ray cluster at `{address}`: {str(error).splitlines()[0]}",
            hint="start one with `ray start --head` and give its HOST:PORT, or use --ray local",
        ) from error
    try:
        there = options.model_copy(update={"task": _absolute(options.task)})
        remote = ray.remote(num_cpus=1)(_train_on_one_thread)
        waiting = [remote.remote(there, kind, index) for kind, index in missing]
        while waiting:
            done, waiting = ray.wait(waiting)
            try:
                yield ray.get(done[0])
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from error
    finally:
        ray.shutdown()


def _train_on_one_thread(options: Study, kind: Kind, index: int) -> Row:
    """`train` in a process of its own."""
    torch.set_num_threads(1)
    return train(options, kind, index)


def _absolute(spec: str) -> str:
    """A task's `FILE.py` or `FILE.py:NAME` that means the same in another working directory."""
    file, name = tasks.split_spec(spec)
    return f"{Path(file).resolve()}:{name}" if name else str(Path(file).resolve())


def _refuse_unfit(options: Study, model: nn.Module) -> None:
    """Raise before any work where the model has not the one layer, or cannot start from random weights."""
    draw(options, options.kinds[0], 0).check(model)
    reinitialise(model, options.seed)


def _with_row(results: Results, row: Row) -> Results:
    kinds = results.study.kinds
    rows = sorted((*results.rows, row), key=lambda row: (kinds.index(row.kind), row.index))
    return results.model_copy(update={"rows": tuple(rows)})


@cache
def _task(spec: str) -> GuardedTask:
    """The task, loaded once a process: its file keeps the data that it has read."""
    return tasks.load(spec)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread of PyTorch, as in the processes of `jobs`, so that sums come out the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seed(options: Study, kind: Kind, index: int) -> int:
    """0..2^32 - 1, another one for each graph."""
    digest = hashlib.sha256(f"{options.seed} {kind} {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _pearson(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Covariance over the product of the standard deviations; None where one of these is 0."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return statistics.correlation(first, second)
