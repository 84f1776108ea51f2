"""Models of the kinds that other pruning tools test themselves on: writes docs/results/peers.md.

    pip install torchvision torch-pruning
    python benchmarks/peers.py [--suite NAME] [--only NAME] [--resume FILE.json]

Every model has random weights in float64 and is asked for half of all its channels and units. *pruned*: parameters
that are left. *right*: checked without the tool's own knowledge. All weights of a model are different numbers, so what
the smaller model still holds tells which rows are gone; the original with these rows at 0 must give the same outputs,
of the same sizes. Torch-Pruning does the same with its own pruner (`MagnitudePruner`, ratio 0.5, layers that make an
output ignored), TinyNeuralNetwork does not run on this PyTorch: its column is what its own tests assert.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import resource
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.kinds.kind import KindTask  # noqa: E402
from benchmarks.peer_check import differs, distinct, pruned_by_torch_pruning  # noqa: E402
from compressor.errors import CompressorError  # noqa: E402
from compressor.methods.base import Context, State  # noqa: E402
from compressor.methods.magnitude import Magnitude  # noqa: E402
from compressor.progress import Silent  # noqa: E402
from compressor.task.guard import GuardedTask  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from benchmarks.kinds.kind import Kind

SUITES = {
    "recurrent_grid": ("TinyNeuralNetwork's recurrent layers", 48),
    "channel_groups": ("TinyNeuralNetwork's other models", 32),
    "dependencies": ("Torch-Pruning's models", None),
    "vision": ("Classes of `torchvision`, small pictures", None),
}
"""Module of the kinds -> title, and how many its own tool prunes as its tests tell; None: it is run."""
SIZES = ((2, 7), (3, 9))
SECONDS, GIGABYTES = 120, 8
"""What a peer may take for one model."""


def main() -> int:
    """Write the page; exit code 1 if something wrong was accepted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=SUITES, help="this one alone, printed and not written")
    parser.add_argument("--only", default="", help="names that contain this, printed and not written")
    parser.add_argument("--resume", type=Path, help="rows that were computed already, kept up to date")
    parser.add_argument("--known", action="store_true", help="write the page from the rows of --resume alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    known = json.loads(options.resume.read_text()) if options.resume and options.resume.exists() else {}
    page, totals, wrong = [], [], 0
    for suite, (title, published) in SUITES.items():
        if options.suite not in (None, suite):
            continue
        rows = []
        for kind in importlib.import_module(f"benchmarks.kinds.{suite}").KINDS:
            if options.only not in kind.name:
                continue
            key = f"{suite}: {kind.name}"
            if options.known and key not in known:
                continue
            known[key] = known.get(key) or outcome(kind, peer=published is None)
            rows.append([kind.name, *known[key]])
            print(*rows[-1], sep=" | ", flush=True)
            if options.resume:
                options.resume.write_text(json.dumps(known, indent=1))
        wrong += sum(row[2] == "**no**" for row in rows)
        totals.append(_total(title, rows, published))
        page += ["", f"## {title}", "", *_table(rows, published)]
    if not (options.suite or options.only):
        _write(totals, page)
    print(*totals, sep="\n")
    return bool(wrong)


def outcome(kind: Kind, *, peer: bool) -> list[str]:
    """Pruned, right and why not: of ours, and of Torch-Pruning if it is the peer."""
    ours = _tried(kind, pruned_by_us)
    return ours + (_limited(kind, pruned_by_torch_pruning) if peer else ["", "", ""])


def _limited(kind: Kind, prune: Callable[[Any, nn.Module], nn.Module]) -> list[str]:
    """The same in a process that may take so much time and memory: a peer's graph of some models grows without end."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30, GIGABYTES << 30))
        theirs.send(_tried(kind, prune))

    process = context.Process(target=child)
    process.start()
    theirs.close()
    try:
        if ours.poll(SECONDS):
            return list(ours.recv())
    except EOFError:  # it was ended from outside
        pass
    finally:
        process.kill()
        process.join()
    return ["no", "-", f"no result within {SECONDS} s and {GIGABYTES} GiB"]


def _tried(kind: Kind, prune: Callable[[Any, nn.Module], nn.Module]) -> list[str]:
    task = GuardedTask(KindTask(kind), __file__)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = distinct(task.model())
        examples = [_doubled(task.example(batch, min(length, kind.max_length))) for batch, length in SIZES]
        try:
            smaller = prune(_Doubled(task), model)
        except CompressorError as error:
            return ["no", "-", _short(error.message)]
        except Exception as error:  # a peer's own
            return ["no", "-", _short(f"{type(error).__name__}: {error}")]
        before, after = (sum(part.numel() for part in each.parameters()) for each in (model, smaller))
        if after == before:
            return ["no", "-", "nothing was removed"]
        reason = differs(model, smaller, examples)
        return [f"{after / before:.0%}", "**no**" if reason else "yes", reason]


def pruned_by_us(task: Any, model: nn.Module) -> nn.Module:
    """Half of everything that this tool can remove."""
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    method = Magnitude(prune="units", ratio=0.5, targets=("*",), compensate=False)
    return method.apply(State(model), context).state.model


class _Doubled(GuardedTask):
    """The same task with inputs in float64."""

    def __init__(self, task: GuardedTask) -> None:
        """Of a task whose model was called already."""
        self.__dict__.update(task.__dict__)

    def example(self, *sizes: Any, **named: Any) -> Any:
        """The inputs of the task in float64."""
        return _doubled(super().example(*sizes, **named))


def _doubled(inputs: Any) -> tuple[Tensor, ...]:
    return tuple(part.double() if part.is_floating_point() else part for part in tree_leaves(inputs))


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= 160 else line[:157] + "..."


def _total(title: str, rows: list[list[str]], published: int | None) -> str:
    count, wrong = sum(row[1] != "no" for row in rows), sum(row[2] == "**no**" for row in rows)
    peer = published if published is not None else sum(row[4] not in ("no", "") for row in rows)
    bad = "-" if published is not None else sum(row[5] == "**no**" for row in rows)
    return f"| {title} | {len(rows)} | {count} | {wrong} | {peer} | {bad} |"


def _table(rows: list[list[str]], published: int | None) -> list[str]:
    columns = ["model", "pruned", "right", "why not"]
    columns += ["Torch-Pruning", "right", "why not"] if published is None else []
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(row[: len(columns)]) + " |" for row in rows]


def _write(totals: list[str], page: list[str]) -> None:
    explained = (__doc__ or "").split("\n\n", 2)[2]
    head = ["# Models of other tools' tests", "", "Made by `python benchmarks/peers.py`. " + explained.strip(), ""]
    columns = ("suite", "models", "pruned", "of these wrong", "by the peer", "of these wrong")
    head += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *totals]
    (ROOT / "docs" / "results" / "peers.md").write_text("\n".join(head + page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
