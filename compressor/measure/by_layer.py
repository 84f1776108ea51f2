"""What each layer of a model takes of an ONNX file: parameters, bytes, multiply-accumulates, time.

A node belongs to the module whose weights it reads, directly or through nodes that compute from weights alone (such as
a `DequantizeLinear`). Weights are known by their names, which an exported file keeps. What reads no weights, or those
of several modules, belongs to the rest: an activation is nobody's, however near it stands.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import onnx
from onnx.external_data_helper import load_external_data_for_model

from compressor.errors import ExportError
from compressor.measure import macs
from compressor.onnx_graphs import walk
from compressor.report import LayerCost
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.session import first_line, open_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from compressor.measure.macs import MacCount
    from compressor.report import LayerSparsity
    from compressor.runtimes.onnx_runtime import Feed

REST: Final = ""
"""The name of what belongs to no module alone."""
_WARMUP_RUNS: Final = 3
_MOST_RUNS: Final = 50
_ENOUGH_SECONDS: Final = 0.5
_Layers = dict[str, frozenset[str]]
"""Name of a value that depends on weights alone -> the modules of these weights."""


class Owners:
    """Which module a weight of a file belongs to, by its name."""

    def __init__(self, parameters: Iterable[str]) -> None:
        """From the names of the model's parameters; one outside of any module is a layer of its own."""
        self._parameters = {name: name.rpartition(".")[0] or name for name in parameters}
        self.modules = tuple(dict.fromkeys(self._parameters.values()))

    def of(self, name: str) -> str:
        """The module with the longest name that `name` begins with; the rest if there is none."""
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            prefix = ".".join(parts[:length])
            if prefix in self._parameters:
                return self._parameters[prefix]
            if prefix in self.modules:
                return prefix
        return REST


def costs(
    path: Path, inputs: Sequence[Tensor], layers: Sequence[LayerSparsity], counted: MacCount, *, threads: int = 1
) -> tuple[LayerCost, ...]:
    """One entry a module of the model, in its order, and one for the rest of the file.

    Args:
        path: An ONNX file.
        inputs: What it is run on.
        layers: The parameters of the model that the file was made of.
        counted: `macs.survey` of the file and the inputs.
        threads: Of an operator while the nodes are timed.

    Raises:
        ExportError: The file cannot be read, or ONNX Runtime cannot run it.
    """
    owners = Owners(layer.name for layer in layers)
    model = macs.load(path)
    values, of_node = _assigned(model.graph, owners, {})
    parameters: Counter[str] = Counter()
    nonzeros: Counter[str] = Counter()
    for layer in layers:
        parameters[owners.of(layer.name)] += layer.parameters
        nonzeros[owners.of(layer.name)] += layer.nonzeros
    stored = _stored(model, owners)
    products: Counter[str] = Counter()
    for place, number in counted.by_node.items():
        products[of_node[place]] += number
    spent = _milliseconds(path, OnnxFile(path).feed(inputs), owners, values, threads)
    return tuple(
        LayerCost(
            name=name,
            parameters=parameters[name],
            nonzeros=nonzeros[name],
            bytes=stored[name] if name else _whole(path) - sum(stored[module] for module in owners.modules),
            macs=None if counted.uncounted else products[name],
            milliseconds=spent[name],
        )
        for name in (*owners.modules, REST)
    )


def _assigned(graph: onnx.GraphProto, owners: Owners, known: Mapping[str, frozenset[str]]) -> tuple[_Layers, list[str]]:
    """The modules of each value that depends on weights alone, and the module of each node of the graph.

    Args:
        graph: Nodes in the order in which they run.
        owners: Of the weights.
        known: Values of another form of the graph, which may be weights here.
    """
    values = {tensor.name: known.get(tensor.name) or _one(owners.of(tensor.name)) for tensor in graph.initializer}
    of_node = []
    for node in graph.node:
        inputs = [name for name in walk.reads(node) if name]
        modules = frozenset[str]().union(*(values.get(name, ()) for name in inputs))
        if all(name in values for name in node.input if name):
            values |= dict.fromkeys(node.output, modules)
        of_node.append(next(iter(modules)) if len(modules) == 1 else REST)
    return values, of_node


def _one(module: str) -> frozenset[str]:
    return frozenset({module} if module else ())


def _stored(model: onnx.ModelProto, owners: Owners) -> Counter[str]:
    """Bytes of the weights of each module, in bodies of loops too."""
    stored: Counter[str] = Counter()
    for graph in walk.graphs(model.graph):
        for tensor in graph.initializer:
            stored[owners.of(tensor.name)] += _bytes(tensor)
    return stored


def _bytes(tensor: onnx.TensorProto) -> int:
    """As stored: `onnx.load` has read what lies outside of the file."""
    held: int = len(tensor.raw_data) or tensor.ByteSize()
    return held


def _whole(path: Path) -> int:
    """Bytes of the file, and of those beside it that hold its weights."""
    outside: set[str] = {
        entry.value
        for tensor in onnx.load(str(path), load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sum(file.stat().st_size for file in (path, *(path.parent / name for name in outside)))


def _milliseconds(
    path: Path, feed: Feed, owners: Owners, values: Mapping[str, frozenset[str]], threads: int
) -> dict[str, float]:
    """The median over runs of the time that ONNX Runtime spends in the nodes of each module.

    What is timed is the graph as ONNX Runtime fuses it, with a name of our own for each node.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder, "optimized.onnx")
        try:
            open_session(path, threads=threads, optimized=optimized)
            model = onnx.load(str(optimized), load_external_data=False)
            load_external_data_for_model(model, str(path.parent))  # it still names files beside the one given
            _, of_node = _assigned(model.graph, owners, values)
            for inner in walk.nodes(model.graph):
                inner.name = ""
            for place, node in enumerate(model.graph.node):
                node.name = f"node{place}"
            session = open_session(
                model.SerializeToString(), threads=threads, optimization="none", profile=Path(folder, "profile")
            )
            for _ in range(_WARMUP_RUNS + 1):
                session.run(None, feed)
            runs, begin = 1, time.perf_counter()
            while runs < _MOST_RUNS and time.perf_counter() - begin < _ENOUGH_SECONDS:
                session.run(None, feed)
                runs += 1
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ExportError(f"the nodes of {path} cannot be timed: {first_line(error)}") from error
    of_nodes: defaultdict[int, list[int]] = defaultdict(list)
    for place, microseconds in _timed(events):
        of_nodes[place].append(microseconds)
    spent = {module: [0] * runs for module in (*owners.modules, REST)}
    for place, timings in of_nodes.items():
        for run, microseconds in enumerate(timings[_WARMUP_RUNS:]):
            spent[of_node[place]][run] += microseconds
    return {module: statistics.median(timings) / 1000 for module, timings in spent.items()}


def _timed(events: Iterable[Mapping[str, object]]) -> Iterator[tuple[int, int]]:
    """The place of a node and the microseconds of one run of it, in the order of the runs."""
    for event in events:
        name, _, kind = str(event.get("name", "")).partition("_")
        if kind == "kernel_time" and name.startswith("node") and name[4:].isdigit():
            yield int(name[4:]), int(str(event["dur"]))
