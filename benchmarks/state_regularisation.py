"""Does the layer of state-regularised networks (arXiv 1901.08817) make a GRU right that errs beyond its length?

    python benchmarks/state_regularisation.py        # docs/results/automaton.md; some minutes of one core

A GRU of 24 units learns one of Tomita's languages from strings of 16 symbols, until its loss is 0.02 a symbol: it may
err on longer ones. It then learns on for as many steps again, as it is or with h = sum_i a_i s_i, a = softmax(u s_i /
tau), in place of each new state u, with centroids s_i that start from k-means of its states and tau from 1 to 0.1. The
decisions on strings of ten times the length, of each network and of its table: what `automaton` makes of the GRUs, and
the transitions between centroids of the regularised one.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path[:0] = [str(Path(__file__).parents[1])]

from benchmarks.automaton import table_of  # noqa: E402
from compressor.errors import MethodError  # noqa: E402
from compressor.nn.automaton import Automaton  # noqa: E402
from compressor.streaming.automaton.clusters import clusters  # noqa: E402
from tests.methods.test_automaton import LENGTH, Reader, Words  # noqa: E402
from tests.streaming.automaton.tomita import label, random_strings  # noqa: E402

EARLY = 2e-2
STEPS, MORE, BATCH, CENTROIDS = 1000, 300, 64, 24
LONGER = 10


class Regularised(nn.Module):
    """A reader whose states are drawn to centroids."""

    def __init__(self, reader: Reader, centroids: Tensor) -> None:
        super().__init__()
        self.embed, self.head, self.each = reader.embed, reader.head, reader.each
        hidden = reader.rnn.hidden_size
        self.cell = nn.GRUCell(reader.embed.embedding_dim, hidden)
        names = {
            "weight_ih": "weight_ih_l0",
            "weight_hh": "weight_hh_l0",
            "bias_ih": "bias_ih_l0",
            "bias_hh": "bias_hh_l0",
        }
        self.cell.load_state_dict({name: getattr(reader.rnn, other).detach() for name, other in names.items()})
        self.centroids = nn.Parameter(centroids)
        self.tau = 1.0

    def forward(self, symbols: Tensor) -> Tensor:
        x = self.embed(symbols)
        state = x.new_zeros(len(x), self.cell.hidden_size)
        states = []
        for position in range(x.shape[1]):
            state = self.cell(x[:, position], state)
            state = (state @ self.centroids.T / self.tau).softmax(-1) @ self.centroids
            states.append(state)
        scores: Tensor = self.head(torch.stack(states, 1))
        return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", type=int, nargs="*", default=[4, 5, 6])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| language, seed | network | at 2x | at 10x | its table: states | table at 10x |")
    print("|---|---|---|---|---|---|")
    for number in options.languages:
        for seed in range(options.seeds):
            for name, model in networks(number, seed).items():
                print(f"| {number}, {seed} | {name} | {cells(number, model)} |", flush=True)


def networks(number: int, seed: int) -> dict[str, nn.Module]:
    """The early GRU, the one that learnt on, and the regularised one."""
    torch.manual_seed(seed)
    early = Reader(nn.GRU)
    learn(early, number, seed, STEPS, stop=EARLY)
    plain = copy.deepcopy(early)
    learn(plain, number, seed + 100, MORE)
    strings = random_strings(256, LENGTH, torch.Generator().manual_seed(seed), number)
    with torch.no_grad():
        states = early.rnn(early.embed(strings))[0].flatten(0, 1)
    regular = Regularised(early, clusters(states, CENTROIDS, torch.Generator().manual_seed(seed)))
    learn(regular, number, seed + 100, MORE)
    return {"early": early.eval(), "learnt on": plain.eval(), "regularised": regular.eval()}


def learn(model: nn.Module, number: int, seed: int, steps: int, stop: float = 0.0) -> None:
    """Adam on random strings; `tau` falls from 1 to 0.1 if the model has one."""
    generator = torch.Generator().manual_seed(seed)
    strings = random_strings(512, LENGTH, generator, number)
    labels = label(number, strings)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(steps):
        if isinstance(model, Regularised):
            model.tau = math.exp(math.log(0.1) * step / max(steps - 1, 1))
        chosen = torch.randint(len(strings), (BATCH,), generator=generator)
        loss = nn.functional.cross_entropy(model(strings[chosen]).flatten(0, 1), labels[chosen].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < stop:
            return


def cells(number: int, model: nn.Module) -> str:
    found = [f"{right(number, model, times):.2%}" for times in (2, LONGER)]
    table = centroid_table(model) if isinstance(model, Regularised) else extracted(number, model)
    states = "refused" if table is None else str(reached(table))
    return " | ".join((*found, states, "-" if table is None else f"{right(number, table, LONGER):.2%}"))


def extracted(number: int, model: nn.Module) -> Automaton | None:
    """By the method `automaton`; None if that refuses."""
    try:
        table, _ = table_of(model, Words(number, model), max_clusters=24, min_agreement=0.9)
    except MethodError:
        return None
    assert isinstance(table, Automaton)
    return table


@torch.no_grad()
def centroid_table(model: Regularised) -> Automaton:
    """As the paper reads it off: from a centroid a symbol leads to that which attention chooses; 0 is the start."""
    before = torch.cat([model.centroids.new_zeros(1, model.centroids.shape[1]), model.centroids])
    columns = []
    for symbol in range(2):
        x = model.embed(torch.full((len(before),), symbol))
        columns.append(1 + (model.cell(x, before) @ model.centroids.T).argmax(1))
    return Automaton.from_tables([0, 1], torch.stack(columns, 1).tolist(), model.head(before), each=True)


def reached(table: Automaton) -> int:
    """States that some string leads to."""
    found, waiting = {0}, [0]
    while waiting:
        row = table.step.next.view(-1, table.step.class_count)[waiting.pop()].tolist()
        waiting += [state for state in row if state not in found]
        found |= set(row)
    return len(found)


def right(number: int, model: nn.Module, times: int) -> float:
    strings = random_strings(200, times * LENGTH, torch.Generator().manual_seed(7), number)
    with torch.no_grad():
        return float((model(strings).argmax(-1) == label(number, strings)).float().mean())


if __name__ == "__main__":
    main()
