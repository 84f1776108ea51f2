"""One network of the study: its graph, and what it learns from random weights."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import MethodError
from compressor.measure import accuracy, size
from compressor.methods.base import Context, State
from compressor.methods.random_graph import RandomGraph
from compressor.methods.retrain import Retrain
from compressor.nn.graphs.properties import properties
from compressor.nn.recurrent.graph import GraphRecurrent, apply_masks
from compressor.progress import Silent
from compressor.studies.graphs.facts import Row
from compressor.task.forwards import TorchForward
from compressor.task.loading import load

if TYPE_CHECKING:
    from compressor.studies.graphs.facts import Kind, Study
    from compressor.task.guard import GuardedTask


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
    """Lay the task's model out on a graph, initialise all its weights again, train it on labels and evaluate it."""
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
        metric = accuracy.score(task, TorchForward(trained, cpu)).value
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
    """Initialise all weights again, as the modules' `reset_parameters` do, in place; zeros of graphs stay zeros.

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


@cache
def _task(spec: str) -> GuardedTask:
    """The task, loaded once a process: its file keeps the data that it has read."""
    return load(spec)


def _seed(options: Study, kind: Kind, index: int) -> int:
    """0..2^32 - 1, another one for each graph."""
    digest = hashlib.sha256(f"{options.seed} {kind} {index}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
