"""Which models run right in which runtime: topologies of the tests, whole and as a step, in every runtime.

    python benchmarks/runtimes.py [--out FOLDER] [--only WORD] [--backwards] [--again RUNTIME] [--table PAGE]
    python benchmarks/runtimes.py --runtime web [--table PAGE]

Every cell is an export with all its checks, and one more comparison with PyTorch in the runtime itself, at batch sizes,
lengths and numbers that the exporter has not seen. A cell is `ok` with the largest absolute error, or refused with the
reason; a file that leaves an exporter and is wrong is a silent error, and the command then ends with 1.

Cells are kept in FOLDER, one file a topology, and not computed again: delete a file, or take another folder, for that;
`--again RUNTIME` computes the refused and wrong cells of a runtime anew. Formats that came later are added.
`--table` writes the table between two marks of a page, from what FOLDER has (of `--only`), and computes nothing.
`--runtime` computes the cells of one runtime alone; with `--table` it writes its column, and leaves the others as they
are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from compressor.errors import CompressorError, ExportError
from compressor.formats import EXPORTERS, Job, export
from compressor.runtimes.catalogue import RUNTIMES
from compressor.runtimes.environments import locate
from compressor.testing import RandomTask, random_lengths
from exporters import ort, source
from exporters.checks import agreement
from exporters.prepare import private_copy
from tests.exporters import test_aaren, test_converted, test_heads, test_models
from tests.exporters.loops import forms
from tests.exporters.onnx_files import test_step as step_tests
from tests.surgery import attentions, topologies

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from compressor.task.contract import Task

FORMS = ("sequence", "step")
CHECKED = {"openvino": "OpenVINO", "tract": "tract", "web": "web"}
"""Runtimes that take the ONNX file."""
TITLES = {"ort": "ONNX Runtime, .ort"} | {
    name: it.title for name, it in RUNTIMES.items() if name in EXPORTERS and name != "c"
}
"""Formats with a runtime of their own; C has a benchmark of its own (`c_topologies.py`)."""
SEED = 977
"""Of the last comparison; exporters get 0."""
UNSEEN = ((1, 4), (2, 23), (3, 9))
"""(batch, length) of the last comparison; where a file fixes one, it stays."""
START, END = "<!-- runtimes: start -->", "<!-- runtimes: end -->"
TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}


@dataclass(frozen=True)
class Topology:
    """A model and its task."""

    name: str
    build: Callable[[], tuple[nn.Module, Task]]


def recurrent(kind: type[nn.Module], cell: str) -> Topology:
    """A model of the surgery's tests; its lengths are an input only where it reads them."""

    def build() -> tuple[nn.Module, Task]:
        cells = topologies.CELL_KINDS if kind is topologies.CellLoop else topologies.CELLS
        model = kind(cells[cell])
        states = 0 if kind is not topologies.Streaming else 2 if cell == "lstm" else 1
        size = (2, topologies.HIDDEN)

        def example(batch: int, length: int) -> tuple[torch.Tensor, ...]:
            given = tuple(torch.randn(size[0], batch, size[1]) for _ in range(states))
            return torch.randn(batch, length, topologies.INPUT), random_lengths(batch, length), *given

        whole = example(2, 5)
        reads = states > 0 or not _runs(model, whole[0])
        with torch.no_grad():
            outputs = model(*whole)
        first = outputs[0] if states else outputs
        names = [f"state_{index}" for index in range(states)]
        inputs: dict[str, dict[int, str]] = {"features": TIMED, "lengths": LAST} | {
            name: {1: "batch"} for name in names
        }
        outward = {"scores": TIMED if first.dim() == 3 else LAST} | {f"{name}_out": {1: "batch"} for name in names}
        if reads:
            return model, RandomTask(inputs, outward, example)
        alone = _WithoutLengths(model)
        return alone, RandomTask({"features": TIMED}, outward, lambda b, t: example(b, t)[:1])

    return Topology(f"{kind.__name__}, {cell}", build)


class _WithoutLengths(torch.nn.Module):
    """A model that does not read its second input."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor) -> Any:
        return self.model(features, None)


def _runs(model: nn.Module, features: torch.Tensor) -> bool:
    try:
        with torch.no_grad():
            model(features, None)
    except Exception:  # whatever a model's code raises without lengths
        return False
    return True


def attention(name: str, model: Callable[[], nn.Module], task: Callable[[], Task]) -> Topology:
    """A model of the exporters' tests."""
    return Topology(name, lambda: (model(), task()))


def _features(width: int, outputs: dict[str, dict[int, str]], **attributes: Any) -> Callable[[], Task]:
    return lambda: RandomTask(
        {"features": TIMED}, outputs, lambda batch, length: (torch.randn(batch, length, width),), **attributes
    )


def _words() -> Task:
    return RandomTask(
        {"words": TIMED, "lengths": LAST},
        {"logits": TIMED, "mean": LAST, "at_last_step": LAST, "last": LAST},
        lambda batch, length: (torch.randint(test_models.VOCABULARY, (batch, length)), random_lengths(batch, length)),
    )


def _loop(form: type[nn.Module]) -> Task:
    """At the lengths of the other topologies."""
    return forms.task_for(form(), length=11, max_length=29)


def _unused() -> Task:
    return RandomTask(
        {"features": TIMED, "unused": LAST},
        {"hidden": TIMED, "again": TIMED},
        lambda batch, length: (torch.randn(batch, length, 5), torch.randn(batch)),
    )


def _padded(width: int, outputs: tuple[str, ...]) -> Task:
    return RandomTask(
        {"features": TIMED, "lengths": LAST},
        dict.fromkeys(outputs, TIMED),
        lambda batch, length: (torch.randn(batch, length, width), random_lengths(batch, length)),
    )


def every_topology() -> list[Topology]:
    """Those of the surgery's tests with a cell in turn, some with every cell, and those of attention: more than 40."""
    cells = ("lstm", "gru", "rnn_tanh")
    pairs = [(kind, cells[index % 3]) for index, kind in enumerate(topologies.SUPPORTED)]
    for kind in (topologies.EveryStep, topologies.Bidirectional, topologies.Stacked):
        pairs += [(kind, cell) for cell in topologies.CELLS if (kind, cell) not in pairs]
    pairs += [(topologies.LearnedState, "rnn_relu"), (topologies.Streaming, "lstm"), (topologies.Streaming, "gru")]
    pairs += [(topologies.CellLoop, "gru"), (topologies.CellLoop, "lstm"), (topologies.CellLoop, "rnn_relu")]
    found = [recurrent(*pair) for pair in pairs]
    width = attentions.WIDTH
    plain = _features(width, {"scores": TIMED})
    return [
        *found,
        attention("Encoder of 2 layers", attentions.Encoder, plain),
        attention("Encoder, padded", attentions.Encoder, test_heads._task),
        attention("Decoder with cross-attention", attentions.Decoder, plain),
        attention("Attention written by hand", lambda: attentions.Stack(attentions.Nested), plain),
        attention("Attention, packed weights", lambda: attentions.Stack(attentions.Packed), plain),
        attention("Embedding, convolution, GRU, attention", test_models.Mixed, _words),
        attention("One GRU twice, an unused input", test_models.Repeated, _unused),
        attention("Aarens, padded", test_aaren.Sequence, lambda: _padded(5, ("y", "front", "encoded"))),
        attention(
            "Causal encoder, Aaren and cache", step_tests.Decoder, _features(5, {"states": TIMED}, max_length=29)
        ),
        attention("Packed LSTM, uneven GRU, two outputs", step_tests.Tagger, lambda: step_tests.TAGGER),
        attention("GRU cell from a learned state", step_tests.Cells, _features(5, {"y": TIMED})),
        *(attention(f"Loop: {form.__name__}", form, partial(_loop, form)) for form in forms.FORMS),
        *(
            attention(f"Converted: {name}", model, _features(5, {"y": TIMED}))
            for name, model in test_converted.MODELS.items()
        ),
    ]


# --- one topology ---


def examine(topology: Topology, known: list[dict[str, Any]], only: str = "") -> list[dict[str, Any]]:
    """All cells of one topology, with what is known already as it is; `only` computes what one runtime misses."""
    found = {(cell["form"], cell["runtime"]): cell for cell in known}
    every = ("onnxruntime", *CHECKED, *TITLES)
    runtimes = (only,) if only else every
    missing = [(form, runtime) for form in FORMS for runtime in runtimes if (form, runtime) not in found]
    built: tuple[nn.Module, Task] | None = None
    shared: dict[tuple[Any, ...], Any] = {}
    for form, runtime in missing:
        first = found.get((form, "onnxruntime"), {})
        if first.get("state") == "refused":
            continue  # there is no such model to convert
        if runtime in RUNTIMES and locate(runtime) is None:
            continue  # what is not installed has refused nothing
        if built is None:
            torch.manual_seed(0)
            built = topology.build()
            built[0].eval()
        started = time.perf_counter()
        cell = _cell(*built, form, runtime, shared)
        if cell["state"] == "refused" and form == "sequence":
            cell.update(_at_one_length(*built, runtime, shared))
        seconds = round(time.perf_counter() - started, 1)
        found[form, runtime] = {
            "topology": topology.name,
            "form": form,
            "runtime": runtime,
            **cell,
            "seconds": seconds,
        }
    return [found[form, runtime] for form in FORMS for runtime in every if (form, runtime) in found]


def _cell(
    model: nn.Module, task: Task, form: str, runtime: str, shared: dict[tuple[Any, ...], Any], **more: Any
) -> dict[str, Any]:
    """One cell: `state` is ok, refused or WRONG."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path, kind = _exported(model, task, form, runtime, Path(folder), shared, more)
            return _judged(model, task, path, kind)
        except ExportError as error:
            return {"state": "refused", "reason": _reason(error)}
        except CompressorError as error:
            return {"state": "refused", "reason": _reason(error)}


def _exported(
    model: nn.Module,
    task: Task,
    form: str,
    runtime: str,
    folder: Path,
    shared: dict[tuple[Any, ...], Any],
    more: dict[str, Any],
) -> tuple[Path, str | None]:
    """The file, and the runtime where it is not its own."""
    if runtime == "onnxruntime" or runtime in CHECKED:
        job = Job(model, task, folder / "model.ort", ort.Options(form=form, **more), shared=shared)
        path, _ = source.onnx_file(job, folder)
        if runtime == "onnxruntime":
            return path, None
        found, version = agreement(private_copy(model), path, job, runtime=runtime)
        if not found.passed:
            worst = max(found.points, key=lambda point: (not point.within, point.max_absolute))
            raise ExportError(f"{version}: {worst.note or f'off by {worst.max_absolute:.2g}'}")
        return path, runtime
    options = EXPORTERS[runtime].options(form=form, **more)
    artifact = export(Job(model, task, folder / f"model.{runtime}", options, shared=shared))
    return folder / artifact.path, None


def _at_one_length(model: nn.Module, task: Task, runtime: str, shared: dict[tuple[Any, ...], Any]) -> dict[str, Any]:
    """Whether a model that is refused at any length is right at one."""
    fields = EXPORTERS[runtime].options.model_fields if runtime in EXPORTERS else {}
    if "length" not in fields or task.min_length == task.max_length:
        return {}
    return {"fixed": _cell(model, task, "sequence", runtime, shared, length=task.length) | {"length": task.length}}


def _judged(model: nn.Module, task: Task, path: Path, runtime: str | None) -> dict[str, Any]:
    """The file beside PyTorch, on inputs that the exporter has not seen."""
    from compressor.measure import parity
    from compressor.measure.diagnosis import table
    from compressor.nn.attention.plain import plain_attention
    from compressor.runtimes.forward import Fixed, open_forward
    from exporters.stepping.sequences import Sequences

    forward = open_forward(path, task, runtime=runtime)
    try:
        alone, length = (forward.alone, forward.length) if isinstance(forward, Fixed) else (False, None)
        sizes = [(1 if alone else batch, _within(task, length or other)) for batch, other in UNSEEN]
        own: Any = task if isinstance(forward, Fixed) else Sequences(task, forward.info.inputs)
        shaped = _Sizes(own, sizes)
        with torch.no_grad(), plain_attention():
            found = parity.check(
                private_copy(model), forward, shaped, atol=1e-5, rtol=1e-4,
                generator=torch.Generator().manual_seed(SEED), extra=sizes,
            )  # fmt: skip
    finally:
        forward.close()
    largest = max(point.max_absolute for point in found.points)
    if found.passed:
        return {"state": "ok", "error": largest}
    return {"state": "WRONG", "reason": table(found), "error": largest if largest < float("inf") else None}


class _Sizes:
    """A task without dynamic axes, so that only the sizes that are asked for are compared."""

    def __init__(self, task: Any, sizes: list[tuple[int, int]]) -> None:
        self.inputs, self.ranges = {"sizes": {}}, {}
        self.length = self.min_length = self.max_length = sizes[0][1]
        self.example = task.example


def _within(task: Task, length: int) -> int:
    return max(task.min_length, min(task.max_length, length))


def _reason(error: CompressorError) -> str:
    """Without folders and numbers of this run."""
    return " ".join(error.message.split())[:700]


# --- the table ---


def table(cells: list[dict[str, Any]]) -> str:
    """Markdown: one row a topology and form, one column a runtime, reasons below."""
    columns = list(dict.fromkeys(cell["runtime"] for cell in cells))
    order = [name for name in ("onnxruntime", *CHECKED, *TITLES) if name in columns]
    titles = {"onnxruntime": "ONNX Runtime", **CHECKED, **TITLES}
    rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for cell in cells:
        rows.setdefault((cell["topology"], cell["form"]), {})[cell["runtime"]] = cell
    reasons: dict[str, int] = {}
    lines = [
        "| topology | form | " + " | ".join(titles[name] for name in order) + " |",
        "|---|---|" + "---|" * len(order),
    ]
    steps: list[str] = []
    for (topology, form), found in rows.items():
        first = found.get("onnxruntime")
        if first is not None and first["state"] == "refused":
            steps.append(f"* {topology}, {form}: {first['reason']}")
            continue
        texts = [_text(found[name], reasons) if name in found else "" for name in order]
        lines.append(f"| {topology} | {form} | " + " | ".join(texts) + " |")
    counts = {state: sum(cell["state"] == state for cell in cells) for state in ("ok", "refused", "WRONG")}
    names = len({cell["topology"] for cell in cells})
    head = (
        f"{names} topologies, {counts['ok']} cells ok, {counts['refused']} refused, {counts['WRONG']} silently wrong. "
        "A number is the largest absolute error against PyTorch.\n"
    )
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    said = ["", "Refused, because:", "", *notes]
    if steps:
        said += ["", "Not exported at all, because:", "", *steps]
    return "\n".join([head, *lines, *said])


def with_column(old: str, cells: list[dict[str, Any]], runtime: str) -> str:
    """A table in which the column of one runtime is new; of rows that were not computed it is empty."""
    title = {**CHECKED, **TITLES}[runtime]
    found = {(cell["topology"], cell["form"]): cell for cell in cells if cell["runtime"] == runtime}
    reasons: dict[str, int] = {}
    lines, place = [], None
    for line in old.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")] if line.startswith("| ") else []
        if parts[:2] == ["topology", "form"]:
            place = parts.index(title) if title in parts else len(parts)
            parts[place : place + 1] = [title]
        elif line.startswith("|---"):
            line = "|" + "---|" * max(line.count("---"), (place or 0) + 1)  # noqa: PLW2901
        elif parts and place is not None:
            cell = found.get((parts[0], parts[1]))
            parts[place : place + 1] = ["" if cell is None else _text(cell, reasons).replace("(", f"({title} ")]
        lines.append(f"| {' | '.join(parts)} |" if parts else line)
    lines = [line for line in lines if not line.startswith(f"* {title} ")]
    return "\n".join([*lines, *(f"* {title} {number}: {reason}" for reason, number in reasons.items())])


def _text(cell: dict[str, Any], reasons: dict[str, int]) -> str:
    if cell["state"] == "ok":
        return f"{cell['error']:.0e}"
    if cell["state"] == "WRONG":
        return "**WRONG**"
    number = reasons.setdefault(_general(cell["reason"]), len(reasons) + 1)
    fixed = cell.get("fixed", {})
    also = f"; length {fixed['length']} only: {fixed['error']:.0e}" if fixed.get("state") == "ok" else ""
    return f"refused ({number}){also}"


def _general(reason: str) -> str:
    """The reason without what differs from cell to cell."""
    import re

    reason = re.sub(r"/[^ ]*/", "", reason)
    reason = re.sub(r"off by [0-9.e+-]+", "off by more than the tolerance", reason)
    reason = re.sub(r"at batch \d+ and length \d+", "", reason)
    return re.sub(r"\b\d{3,}\b", "N", " ".join(reason.split()))[:420].replace("|", "\\|")


def read(folder: Path, only: str) -> list[dict[str, Any]]:
    """All cells that were computed of topologies whose name holds a word, in the order of the topologies."""
    found = []
    for topology in every_topology():
        if only not in topology.name:
            continue
        path = _file(folder, topology)
        if path.is_file():
            found += json.loads(path.read_text(encoding="utf-8"))
    return found


def _file(folder: Path, topology: Topology) -> Path:
    name = "".join(letter if letter.isalnum() else "-" for letter in topology.name)
    return folder / f"{name}.json"


def main() -> int:
    """Compute what is missing; 1 where a cell is silently wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/runtimes"), help="where cells are kept")
    parser.add_argument("--only", default="", help="topologies whose name holds this word")
    parser.add_argument("--backwards", action="store_true", help="from the last topology, to meet another process")
    parser.add_argument("--again", default="", help="a runtime whose refused and wrong cells are computed anew")
    parser.add_argument(
        "--runtime", default="", help="the only one whose cells are computed, or whose column is written"
    )
    parser.add_argument("--table", type=Path, help="write the table into this page, between its marks")
    options = parser.parse_args()
    if options.table is not None:
        cells = read(options.out, options.only)
        page = options.table.read_text(encoding="utf-8")
        before, rest = page.split(START)
        old, after = rest.split(END)
        new = with_column(old.strip(), cells, options.runtime) if options.runtime else table(cells)
        options.table.write_text(f"{before}{START}\n{new}\n{END}{after}", encoding="utf-8")
        return int(any(cell["state"] == "WRONG" for cell in cells))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [topology for topology in every_topology() if options.only in topology.name]
    if options.backwards:
        wanted.reverse()
    wrong = 0
    for number, topology in enumerate(wanted, 1):
        path = _file(options.out, topology)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        kept = [cell for cell in known if cell["runtime"] != options.again or cell["state"] == "ok"]
        cells = examine(topology, kept, options.runtime)
        if cells != known:
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(cells, indent=1), encoding="utf-8")
            draft.replace(path)
        counts = [sum(cell["state"] == state for cell in cells) for state in ("ok", "refused", "WRONG")]
        wrong += counts[2]
        seconds = sum(cell["seconds"] for cell in cells)
        print(
            f"{number}/{len(wanted)} {topology.name}: {counts[0]} ok, {counts[1]} refused, {counts[2]} wrong, "
            f"{seconds:.0f} s",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
