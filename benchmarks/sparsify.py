"""Does it pay to press units before they go? One-shot removal against `sparsify`, and Torch-Pruning beside.

    python benchmarks/sparsify.py [--seeds 3] [--ratio 0.75] [--epochs 6] [--json FILE]

Two networks learn scikit-learn's handwritten digits (8 x 8 pixels, 1,797 pictures, a third of them for the test) from
random weights for each seed: a residual CNN with an LSTM over the rows, and a Transformer encoder over the rows. Each
row then removes the same share of channels, LSTM units or feed-forward units, with as many training epochs in all:
half of them before the removal and half after it, or all after it. The accuracy on the test pictures is computed by
PyTorch; no setting is chosen by it. Torch-Pruning's rows use its own GroupNormPruner, alone (it passes over the LSTM:
`ignored_layers`) and with `compressor.torch_pruning`; they end with the same retraining.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compressor import Task
from compressor.files import write_whole
from compressor.methods.base import Context, State
from compressor.methods.magnitude import Magnitude
from compressor.methods.retrain import Retrain
from compressor.methods.sparsify import Sparsify
from compressor.progress import Silent
from compressor.torch_pruning import RecurrentMagnitudeImportance, recurrent, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CPU = torch.device("cpu")
PENALTIES = ("growing", "group_norm", "lasso")
LR = 3e-3
BATCH = 32


class Residual(nn.Module):
    """Two convolutions around which the input goes."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.second, self.last = nn.Conv2d(inner, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return torch.relu(x + self.last(self.second(torch.relu(self.norm(self.first(x))))))


class Rows(nn.Module):
    """A residual CNN, and an LSTM from the top row to the lowest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.blocks = nn.Sequential(Residual(24, 32), Residual(24, 32))
        self.lstm, self.head = nn.LSTM(24, 64, batch_first=True), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 8) -> (B, 10)."""
        features = self.blocks(torch.relu(self.norm(self.stem(x.unsqueeze(1)))))  # (B, C, T, 8)
        return self.head(self.lstm(features.mean(3).transpose(1, 2))[0][:, -1])


class Encoder(nn.Module):
    """A Transformer encoder over the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.places = nn.Linear(8, 32), nn.Parameter(0.02 * torch.randn(64, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 8) -> (B, 10)."""
        return self.head(self.layers(self.enter(x) + self.places[: x.size(1)]).mean(1))


class Digits(Task):
    """Which digit is it?"""

    inputs: Mapping[str, Mapping[int, str]] = {"rows": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch"}}
    length, min_length, max_length = 8, 1, 64

    def __init__(self, network: Callable[[], nn.Module]) -> None:
        digits = load_digits()
        pictures, labels = torch.tensor(digits.images, dtype=torch.float32) / 16.0, torch.tensor(digits.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        test, train = order[:599], order[599:]
        self.test, self.train = (pictures[test], labels[test]), (pictures[train], labels[train])
        self.network = network

    def model(self) -> nn.Module:
        return self.network()

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        return (torch.randn(batch, length, 8, generator=torch.Generator().manual_seed(0)),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        pictures, labels = self.train
        for chosen in torch.randperm(len(labels), generator=generator).split(BATCH):
            yield (pictures[chosen],), labels[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward: Any) -> float:
        pictures, labels = self.test
        return float((forward(pictures).argmax(-1) == labels).float().mean())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "residual CNN + LSTM": (Rows, ("blocks.*.first", "lstm")),
    "Transformer encoder": (Encoder, ("layers.layers.*.linear1",)),
}


def main() -> None:
    """Measure, print a table for each network, and keep the numbers if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ratio", type=float, default=0.75)
    parser.add_argument("--epochs", type=int, default=6, help="training epochs of each row, an even number")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Torch-Pruning's about parameters that it does not know
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for title, (network, targets) in NETWORKS.items():
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in range(options.seeds):
            for name, values in measure(network, targets, options.ratio, options.epochs, seed):
                rows.setdefault(name, []).append(values)
        results[title] = rows
        print_table(title, rows)
    if options.json is not None:
        write_whole(options.json, json.dumps(results, indent=1).encode())


def measure(
    network: Callable[[], nn.Module], targets: tuple[str, ...], ratio: float, epochs: int, seed: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Every row for one seed: its name, and what was measured."""
    torch.manual_seed(seed)
    task = Digits(network)
    trained = _retrain(State(network()), task, 20, seed)
    yield "original", _measured(trained.model, trained.model, task)
    removal = Magnitude(prune="units", targets=targets, ratio=ratio)

    def remove(state: State) -> State:
        return removal.apply(state, context(task, state.model, seed)).state

    smaller = remove(trained)
    yield "one-shot", _measured(smaller.model, _retrain(smaller, task, epochs, seed).model, task)
    training = Retrain(epochs=epochs // 2, lr=LR)
    longer = _retrain(trained, task, epochs // 2, seed)
    smaller = remove(longer)
    yield "trained on, then removed", _measured(smaller.model, _retrain(smaller, task, epochs // 2, seed).model, task)
    for penalty in PENALTIES:
        pressed = Sparsify(targets=targets, ratio=ratio, penalty=penalty, retrain=training)
        result = pressed.apply(trained, context(task, trained.model, seed))
        smaller = remove(result.state)
        row = _measured(smaller.model, _retrain(smaller, task, epochs // 2, seed).model, task)
        yield f"`sparsify`, {penalty}", row | dict(result.facts)
    for name, ours in (("Torch-Pruning alone", False), ("Torch-Pruning with our pruners", True)):
        if not ours and not any(isinstance(module, nn.Conv2d) for module in trained.model.modules()):
            continue
        cut = by_torch_pruning(trained.model, task, targets, ratio, epochs // 2, seed, ours=ours)
        yield name, _measured(cut, _retrain(State(cut), task, epochs // 2, seed).model, task)


def by_torch_pruning(
    model: nn.Module, task: Digits, targets: tuple[str, ...], ratio: float, epochs: int, seed: int, *, ours: bool
) -> nn.Module:
    """Its GroupNormPruner: training with its regulariser, then removal, from the same layers."""
    model = copy.deepcopy(model).train()
    roots = [name for name, module in model.named_modules() if any(_fits(name, pattern) for pattern in targets)]
    kinds = (nn.LSTM, nn.Linear, nn.Conv2d)
    ignored = [module for name, module in model.named_modules() if isinstance(module, kinds) and name not in roots]
    if not ours:
        ignored += [module for module in model.modules() if isinstance(module, nn.LSTM)]
    example = task.example(2, 8)[0]
    pruner = torch_pruning.pruner.GroupNormPruner(
        model,
        example,
        importance=RecurrentMagnitudeImportance() if ours else torch_pruning.importance.GroupMagnitudeImportance(),
        reg=1e-3,
        pruning_ratio=ratio,
        ignored_layers=ignored,
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
        **(recurrent(model) if ours and any(isinstance(module, nn.LSTM) for module in model.modules()) else {}),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for inputs, labels in task.batches(generator):
            optimizer.zero_grad()
            task.loss(model(*inputs), labels).backward()
            pruner.regularize(model)
            optimizer.step()
    model.eval()
    if ours:
        step(pruner, example)
    else:
        pruner.step()
    return model


def _fits(name: str, pattern: str) -> bool:
    import fnmatch

    return fnmatch.fnmatchcase(name, pattern)


def _retrain(state: State, task: Digits, epochs: int, seed: int) -> State:
    return Retrain(epochs=epochs, lr=LR, schedule="cosine").apply(state, context(task, state.model, seed)).state


def context(task: Digits, model: nn.Module, seed: int) -> Context:
    """What a step is given."""
    return Context(task, model, CPU, torch.Generator().manual_seed(seed), Silent())


@torch.no_grad()
def _measured(cut: nn.Module, retrained: nn.Module, task: Digits) -> dict[str, float]:
    return {
        "parameters": float(sum(item.numel() for item in retrained.parameters())),
        "cut": task.evaluate(copy.deepcopy(cut).eval()),
        "retrained": task.evaluate(copy.deepcopy(retrained).eval()),
    }


def print_table(title: str, rows: Mapping[str, list[dict[str, float]]]) -> None:
    """Means over the seeds, lowest and highest in brackets."""
    print(f"\n{title}\n\n| | parameters | accuracy, removed | and retrained |\n|---|---|---|---|")
    for name, values in rows.items():
        cells = [_cell([100 * value[key] for value in values]) for key in ("cut", "retrained")]
        print(
            f"| {name} | {statistics.fmean(value['parameters'] for value in values):,.0f} | {' | '.join(cells)} |",
            flush=True,
        )


def _cell(values: list[float]) -> str:
    return f"{statistics.fmean(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


if __name__ == "__main__":
    main()
