"""Good tasks: random layers, layouts, calls, results, data and metrics, all of which have to be accepted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from compressor import Call, Evaluation, Task

if TYPE_CHECKING:
    import random

FEATURES, HIDDEN, CLASSES = 3, 4, 2
LONG_NAME = "features_" + "x" * 291
"""A name of 300 characters."""


@dataclasses.dataclass
class Result:
    logits: Tensor
    hidden: Tensor | None = None
    note: str = "none"


class Named(NamedTuple):
    logits: Tensor
    extra: tuple[Tensor, None]


class Net(nn.Module):
    """One of several layers; inputs, results and axes as chosen."""

    def __init__(self, choice: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.choice = choice
        self.first = choice["batch_first"]
        kinds = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
        self.table = nn.Embedding(11, FEATURES)
        self.layer: nn.Module
        if choice["layer"] in kinds:
            self.layer = kinds[choice["layer"]](FEATURES, HIDDEN, batch_first=self.first)
        elif choice["layer"] == "attention":
            self.layer = nn.Linear(FEATURES, 3 * HIDDEN)
        else:
            self.layer = nn.Linear(FEATURES, HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)
        self.register_buffer("mask", torch.full((1,), float("-inf")))

    def encode(self, x: Tensor) -> Tensor:
        if x.dtype == torch.int64:
            x = self.table(x)
        if self.choice["layer"] == "attention":
            x = x if self.first else x.transpose(0, 1)
            query, key, value = self.layer(x).chunk(3, -1)
            y = (query @ key.transpose(1, 2)).softmax(-1) @ value
            return y if self.first else y.transpose(0, 1)
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y

    def forward(self, x: Tensor, scale: Tensor | None = None, *, state: dict[str, Any] | None = None) -> Any:
        hidden = self.encode(x)
        hidden = hidden if scale is None else hidden * scale
        hidden = hidden if state is None else hidden + state["pair"][0]
        logits = self.head(hidden.mean(1 if self.first else 0)) if self.choice["pooled"] else self.head(hidden)
        return {
            "tensor": logits,
            "tuple": (logits, hidden),
            "dict": {"logits": logits, "all": [hidden, None]},
            "dataclass": Result(logits, hidden),
            "named": Named(logits, (hidden, None)),
        }[self.choice["result"]]


class Fuzzed(Task):
    """A good task; `choice` says which, and faults replace what they spoil."""

    length, min_length, max_length = 6, 1, 12
    choice: dict[str, Any]

    def model(self) -> nn.Module:
        return Net(self.choice)

    def inputs_of(self, batch: int, length: int, generator: torch.Generator | None = None) -> Any:
        sizes = (batch, length) if self.choice["batch_first"] else (length, batch)
        x = (
            torch.randint(11, sizes, generator=generator)
            if self.choice["tokens"]
            else torch.randn(*sizes, FEATURES, generator=generator)
        )
        extra = torch.ones(HIDDEN)
        return {
            "tensor": x,
            "tuple": (x,),
            "two": (x, extra),
            "dict": {"x": x, "scale": extra},
            "call": Call(x, state={"pair": (extra, extra)}),
        }[self.choice["call"]]

    def example(self, batch: int, length: int) -> Any:
        return self.inputs_of(batch, length)

    def batches(self, generator: torch.Generator) -> Any:
        if self.choice["loader"] and self.choice["call"] in ("tensor", "tuple") and self.choice["batch_first"]:
            x = self.inputs_of(8, self.length, generator)
            x = x[0] if isinstance(x, tuple) else x
            return DataLoader(TensorDataset(x, torch.zeros(8, dtype=torch.int64)), batch_size=4)
        return [(self.inputs_of(4, self.length, generator), torch.zeros(4, dtype=torch.int64)) for _ in range(2)]

    def logits(self, results: Any) -> Tensor:
        logits = {
            "tensor": lambda: results,
            "tuple": lambda: results[0],
            "dict": lambda: results["logits"],
            "dataclass": lambda: results.logits,
            "named": lambda: results.logits,
        }[self.choice["result"]]()
        return logits if self.choice["pooled"] else logits.mean(1 if self.choice["batch_first"] else 0)

    def loss(self, outputs: Any, target: Any) -> Tensor:
        return nn.functional.cross_entropy(self.logits(outputs), target)

    def called(self, forward: Any, batch: int = 8) -> Any:
        given = self.inputs_of(batch, self.length, torch.Generator().manual_seed(1))
        if isinstance(given, Call):
            return forward(*given.args, **given.kwargs)
        if isinstance(given, dict):
            return forward(**given)
        return forward(*given) if isinstance(given, tuple) else forward(given)

    def evaluate(self, forward: Any) -> Any:
        samples = self.logits(self.called(forward)).argmax(1).eq(0).float()
        return {
            "float": lambda: float(samples.mean()),
            "scalar": samples.mean,
            "samples": lambda: samples,
            "evaluation": lambda: Evaluation(per_sample=samples, parts={"first": float(samples[0])}),
        }[self.choice["metric"]]()


def choose(random_numbers: random.Random) -> dict[str, Any]:
    """One good task."""
    pick = random_numbers.choice
    return {
        "layer": pick(["gru", "lstm", "rnn", "linear", "attention"]),
        "batch_first": pick([True, True, False]),
        "tokens": pick([False, False, True]),
        "pooled": pick([True, False]),
        "result": pick(["tensor", "tuple", "dict", "dataclass", "named"]),
        "call": pick(["tensor", "tuple", "two", "dict", "call"]),
        "loader": pick([True, False]),
        "metric": pick(["float", "scalar", "samples", "evaluation"]),
    }
