"""Tables instead of recurrent models: Tomita's seven languages and the Reber sample, at ten times the training length.

python benchmarks/automaton.py tomita               # docs/results/automaton.md; some minutes of one core
python benchmarks/automaton.py tomita --cell lstm
python benchmarks/automaton.py reber
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "samples")]

from reber.grammar import INVALID, VALID, sampler  # noqa: E402

from compressor.methods.automaton import Automaton  # noqa: E402
from compressor.methods.base import Context, State  # noqa: E402
from compressor.progress import Silent  # noqa: E402
from compressor.task.loading import load  # noqa: E402
from tests.methods.test_automaton import LENGTH, Words, trained  # noqa: E402
from tests.streaming.automaton.tomita import LANGUAGES, label, random_strings  # noqa: E402

if TYPE_CHECKING:
    from compressor.task.contract import Task

CPU = torch.device("cpu")
LENGTHS = (11, 50, 150, 220, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["tomita", "reber"])
    parser.add_argument("--cell", choices=["gru", "lstm"], default="gru")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "tomita":
        tomita({"gru": nn.GRU, "lstm": nn.LSTM}[options.cell])
    else:
        reber()


def table_of(model: nn.Module, task: Task, **options: int) -> tuple[nn.Module, dict[str, float]]:
    context = Context(task, model, CPU, torch.Generator().manual_seed(0), Silent())
    result = Automaton(**options).apply(State(model), context)
    return result.state.model, dict(result.facts)


def tomita(kind: type[nn.Module]) -> None:
    """Decisions after every symbol of 1,000 strings of ten times the training length."""
    print("| language | states | table | agreement | model, 10x | table, 10x |")
    print("|---|---|---|---|---|---|")
    for number in LANGUAGES:
        model = trained(number, kind)
        table, facts = table_of(model, Words(number, model), max_clusters=32)
        strings = random_strings(1000, 10 * LENGTH, torch.Generator().manual_seed(7), number)
        wanted = label(number, strings)
        with torch.no_grad():
            right = [float((each(strings).argmax(-1) == wanted).float().mean()) for each in (model, table)]
        agreement = facts["agreement with the model on held-out strings"]
        print(
            f"| {number} | {facts['states']:.0f} | {facts['bytes of the table']:.0f} B | {agreement:.2%} | "
            f"{right[0]:.2%} | {right[1]:.2%} |",
            flush=True,
        )


def reber() -> None:
    """Valid strings and the eight families of invalid ones, each string by itself, so that no padding follows it."""
    task = load("samples/reber/task.py:GRU")
    model = task.model().eval()
    table, facts = table_of(model, task)
    print({name: round(value, 4) for name, value in facts.items()})
    generator = random.Random(5)
    print("| letters | strings | model | table |")
    print("|---|---|---|---|")
    for length in LENGTHS:
        right, count = [0, 0], 0
        for letters, wanted in ({VALID: 1} | {family.letters: 0 for family in INVALID}).items():
            draw = sampler(letters, length, generator)
            for _ in range(100):
                codes = torch.tensor([[ord(letter) for letter in draw()]])
                with torch.no_grad():
                    for place, each in enumerate((model, table)):
                        right[place] += int(each(codes).argmax(-1)) == wanted
                count += 1
        print(f"| {length} | {count} | {right[0] / count:.2%} | {right[1] / count:.2%} |", flush=True)


if __name__ == "__main__":
    main()
