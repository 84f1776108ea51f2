"""What each target of `convert` costs at half of a GRU's bytes, on exported files: writes docs/results/conversions.md.

    python benchmarks/conversions.py FOLDER [--tasks vowels turns] [--targets fsmn lssl ...] [--seeds 0 1 2]

Each row converts the trained GRU of 128 units of a task of `samples/japanese_vowels` (one answer a sequence, or one a
step), retrains it with the GRU as teacher, and exports it in float and in 8 bits; the metric is that of the files. With
the first seed it is exported once more at fixed sizes and as a step, for the tables of `compressor check`. What is in
FOLDER is not made again, so that the work can be done in parts; the page has what is there. Some minutes of one core
for each task.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from compressor.errors import CompressorError, ParityError
from compressor.files import write_whole
from compressor.formats import Job
from compressor.measure import accuracy
from compressor.methods.base import Context, State
from compressor.methods.convert import Convert
from compressor.methods.retrain import Retrain
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import survey
from compressor.progress import Silent
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.task.loading import load
from exporters.onnx import Options, export

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.methods.base import Method
    from compressor.report import Artifact
    from compressor.task.guard import GuardedTask

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "conversions.md"
TASKS = {"vowels": "task.py:Gru", "turns": "turns.py:Turns"}
TITLES = {"vowels": "One answer a sequence: who said it?", "turns": "One answer a step: who is speaking now?"}
STEPS = {"vowels": 29, "turns": 64}
"""Of the files of fixed sizes."""
ORIGINAL = "gru"
CONVERSIONS: dict[str, dict[str, Any]] = {
    ORIGINAL: {},
    "fsmn": {"to": "fsmn", "hidden": 120},
    "para_rnn": {"to": "para_rnn"},
    "lssl": {"to": "lssl", "hidden": 120},
    "lssl_dense": {"to": "lssl", "state": "dense", "hidden": 84},
    "additive": {"to": "additive", "hidden": 120},
    "plstm": {"to": "plstm", "hidden": 120},
    "m2rnn": {"to": "m2rnn", "hidden": 112},
}
"""Row -> options of its `convert`: at most half of the GRU's bytes in a float file."""
RETRAIN = Retrain(epochs=10, lr=1e-3, schedule="cosine", distill=True)
PHONES = ("qnn", "nnapi", "coreml", "xnnpack")
FILES: dict[str, dict[str, Any]] = {"float": {}, "int8": {"precision": "int8"}}
ALLOWED = 0.01
CLOSER = 0.03
"""Error of rounding that is allowed where a file with the usual 0.1 is refused."""
CPU = torch.device("cpu")
HEADER = """# Conversions: at half of a GRU's bytes

Made by `python benchmarks/conversions.py runs/conversions`. A trained GRU layer of 128 units hears the Japanese vowels
([sample](../../samples/japanese_vowels)); each row converts it, lets it learn 500 steps from the GRU's outputs, and
retrains it for ten epochs with the GRU as teacher (`recipes/fsmn.yaml` with another `to:`). Options that are not the
defaults: `hidden: 120` of `fsmn`, `lssl`, `additive` and `plstm`, 112 of `m2rnn`, so that the float file is at most
half of the GRU's; `lssl_dense` is `lssl` with `state: dense` and `hidden: 84`. Every accuracy is that of an exported
file in ONNX Runtime, of seeds {seeds} of the conversion; the GRU is the same one. *Within a point*: the mean over the
seeds loses at most 0.01, in both files. (†): the 8-bit file was refused with the usual `max_error` of 0.1, since it was
too far from PyTorch on the task's examples; it has `max_error: 0.03`. *Refused*: that was refused too. A row with fewer
numbers has the first seeds only.

Nodes: those that the tables of `compressor check` take, of the float file at a batch of 1 and {lengths} steps, and of
the step file. Of the GRU's own file the GRU is the node that none takes; of `para_rnn` and `m2rnn` the loop is unrolled
at a fixed length. Nothing was run on an accelerator.
"""


def main() -> None:
    """Make what is missing, and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--targets", nargs="+", choices=CONVERSIONS, default=list(CONVERSIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.tasks:
        task = load(f"{ROOT / 'samples' / 'japanese_vowels' / TASKS[name]}")
        for target in options.targets:
            for seed in options.seeds if target != ORIGINAL else options.seeds[:1]:
                made(task, name, target, seed, options.folder, nodes=seed == options.seeds[0])
    write_page(options.folder, options.seeds)


def record(folder: Path, name: str, target: str, seed: int) -> Path:
    """Where the figures of a row's seed are."""
    return folder / f"{name}-{target}-{seed}.json"


def made(task: GuardedTask, name: str, target: str, seed: int, folder: Path, *, nodes: bool) -> None:
    """Convert, retrain and export with one seed, unless that was done."""
    path = record(folder, name, target, seed)
    if path.is_file():
        return
    model = task.model()
    steps: tuple[Method, ...] = ()
    if target != ORIGINAL:
        steps = (Convert(**CONVERSIONS[target]), RETRAIN)
    context = Context(task, model, CPU, torch.Generator().manual_seed(seed), Silent())
    state = State(copy.deepcopy(model))
    for step in steps:
        state = step.apply(state, context).state
    exports = Exports(task, state.model, path, seed)
    facts = exports.measured()
    if nodes:
        facts["nodes"] = exports.taken(STEPS[name])
    write_whole(path, json.dumps(facts, indent=1).encode())
    print(path.stem, facts, flush=True)


class Exports:
    """Of one converted model, beside its record."""

    def __init__(self, task: GuardedTask, model: torch.nn.Module, record: Path, seed: int) -> None:
        self.task, self.model, self.stem, self.seed = task, model, record.with_suffix(""), seed
        self.shared: dict[tuple[Any, ...], Any] = {}

    def file(self, form: str, **options: Any) -> tuple[Artifact, Path]:
        """One of them."""
        path = self.stem.with_name(f"{self.stem.name}-{form}.onnx")
        return export(Job(self.model, self.task, path, Options(**options), self.seed, shared=self.shared)), path

    def measured(self) -> dict[str, Any]:
        """Metric and bytes of the file in float and in 8 bits."""
        facts: dict[str, Any] = {}
        for form, options in FILES.items():
            made = self.file(form, **options) if form == "float" else self.rounded(options)
            if made is None:
                facts[form] = None
                continue
            artifact, path = made
            facts[form] = {"metric": accuracy.score(self.task, OnnxFile(path)).value, "bytes": artifact.bytes}
            if artifact.quantization is not None and artifact.quantization.max_error == CLOSER:
                facts[form]["closer"] = True
        return facts

    def rounded(self, options: dict[str, Any]) -> tuple[Artifact, Path] | None:
        """The file of 8 bits; if it is refused one that is closer to PyTorch, None if that is refused too."""
        roundings: tuple[dict[str, float], ...] = ({}, {"max_error": CLOSER})
        for rounding in roundings:
            try:
                return self.file("int8", **options, rounding=rounding)
            except ParityError as error:
                print(f"{self.stem.name}, {rounding}: {error.message}", flush=True)
        return None

    def taken(self, length: int) -> dict[str, Any]:
        """Of each form and phone: nodes taken, of how many; or why there is no such file."""
        facts: dict[str, Any] = {}
        forms: dict[str, dict[str, Any]] = {"whole": {"shapes": {"batch": 1, "time": length}}, "step": {"stream": True}}
        for form, options in forms.items():
            try:
                artifact, path = self.file(form, **options)
            except CompressorError as error:
                facts[form] = error.message
                continue
            proto = onnx.load(path.with_name(artifact.step.path) if artifact.step else path)
            found = {phone: survey(proto, targets.get(phone)) for phone in PHONES}
            facts[form] = {phone: [one.taken, one.nodes] for phone, one in found.items()}
        return facts


def write_page(folder: Path, seeds: Sequence[int]) -> None:
    """The page of all tables, of what is in the folder."""
    listed, lengths = ", ".join(map(str, seeds)), " or ".join(map(str, STEPS.values()))
    lines = [HEADER.format(seeds=listed, lengths=lengths)]
    for name, title in TITLES.items():
        rows = {target: _read(folder, name, target, seeds) for target in CONVERSIONS}
        if rows[ORIGINAL]:
            lines += [f"## {title}", "", *table({target: found for target, found in rows.items() if found}), ""]
    write_whole(PAGE, "\n".join(lines).encode())


def _read(folder: Path, name: str, target: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    paths = [record(folder, name, target, seed) for seed in seeds]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def table(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Of one task."""
    phones = " | ".join(f"{phone}, whole / step" for phone in PHONES)
    head = f"| | accuracy, float | accuracy, 8 bits | within a point | file, float | file, 8 bits | {phones} |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    original = rows[ORIGINAL][0]["float"]["metric"]
    for target, found in rows.items():
        drops = {form: original - statistics.fmean(one[form]["metric"] for one in found if one[form]) for form in FILES}
        refused = sum(one["int8"] is None for one in found)
        verdict = "" if target == ORIGINAL else _verdict(drops, refused=refused)
        metrics = [", ".join(_metric(one[form]) for one in found) for form in FILES]
        sizes = [_sizes([one[form]["bytes"] for one in found if one[form]]) for form in FILES]
        nodes = next(one["nodes"] for one in found if "nodes" in one)
        shares = [f"{_share(nodes['whole'], phone)} / {_share(nodes['step'], phone)}" for phone in PHONES]
        lines.append(f"| {' | '.join([f'`{target}`', *metrics, verdict, *sizes, *shares])} |")
    return lines


def _metric(file: dict[str, Any] | None) -> str:
    if file is None:
        return "refused"
    return f"{file['metric']:.4f}{' (†)' if file.get('closer') else ''}"


def _verdict(drops: dict[str, float], *, refused: int) -> str:
    words = ", ".join(f"{form} {-drop:+.4f}" for form, drop in drops.items())
    kept = max(drops.values()) <= ALLOWED
    if kept and refused:
        return f"in float yes, **in 8 bits {refused} refused**: {words}"
    return f"{'yes' if kept else '**no**'}: {words}"


def _sizes(sizes: list[int]) -> str:
    low, high = (f"{size / 1024:.1f}" for size in (min(sizes), max(sizes)))
    return f"{low} KiB" if low == high else f"{low} to {high} KiB"


def _share(found: Any, phone: str) -> str:
    return "no file" if isinstance(found, str) else "{} of {}".format(*found[phone])


if __name__ == "__main__":
    main()
