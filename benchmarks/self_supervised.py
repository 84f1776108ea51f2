"""Retraining without labels: mined views (MYOW, arXiv 2102.10106) beside plain distillation, on the same inputs.

    python benchmarks/self_supervised.py --steps 60            # docs/concepts/papers.md; minutes of one core
    python benchmarks/self_supervised.py --tasks motions --seeds 1

A trained model loses 80 % of its units and learns from the training inputs without their labels, as many steps with
each method. `probe`: accuracy on the test part of a linear map fitted, with labels, to the features in front of the
last layer. `own head`: accuracy with the last layer as it is; self-supervised features do not fit it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.methods.base import Context, State
from compressor.methods.magnitude import Magnitude
from compressor.progress import Silent
from compressor.task.loading import load
from compressor.training.distillation import kl

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
TASKS = {
    "vowels": "samples/japanese_vowels/task.py",
    "motions": "samples/time_series/task.py:Motions",
}
"""Speech windows and a GRU; a watch's sensor and a causal Transformer, of which the feed-forward units are removed."""
TARGETS = {"vowels": None, "motions": ("encoder.layers.*.linear1",)}
RATIO, STEPS, BATCH, RATE = 0.8, 200, 64, 1e-3
MOMENTUM = 0.98
"""Of the target network."""
NEIGHBOURS, POOL, WEIGHT = 3, 128, 0.1
"""Mining: nearest neighbours to draw from, candidates, and the weight that the mined loss rises to (the paper's)."""
STARTS, RISEN = 0.1, 0.6
"""Parts of the training after which mining begins and has its whole weight."""
NOISE, DROPPED, SHIFT = 0.15, 0.2, 4
"""Of a view: noise in deviations of a channel, channels that are zero, first steps that may be cut off."""
PENALTY = 1.0
"""Of the probe's ridge regression, on standardised features."""


@dataclass(frozen=True)
class Data:
    """Sequences (N, T, C), their lengths (N,) and classes (N,)."""

    inputs: Tensor
    lengths: Tensor
    classes: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| | retrained by | probe | own head |")
    print("|---|---|---|---|")
    for label in options.tasks:
        task = load(TASKS[label])
        scores: dict[str, list[tuple[float, float]]] = {}
        for seed in range(options.seeds):
            for method, score in row(label, task, seed, options.steps).items():
                scores.setdefault(method, []).append(score)
        for method, found in scores.items():
            cells = (_cell([score[place] for score in found]) for place in range(2))
            print(f"| {label} | {method} | {' | '.join(cells)} |", flush=True)


def _cell(values: list[float]) -> str:
    spread = f" ({min(values):.2%} to {max(values):.2%})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2%}{spread}"


def row(label: str, task: Any, seed: int, steps: int) -> dict[str, tuple[float, float]]:
    """Method -> the accuracies of probe and own head."""
    original = task.model().eval()
    context = Context(task, original, CPU, torch.Generator().manual_seed(seed), Silent())
    removal = Magnitude(prune="units", ratio=RATIO, compensate=False, targets=TARGETS[label])
    pruned = removal.apply(State(original), context).state.model.eval()
    learnt = data_of(task)
    half = steps // 2

    def mined(model: nn.Module, count: int) -> nn.Module:
        return self_taught(model, learnt, count, seed, weight=WEIGHT)

    ways: dict[str, Callable[[nn.Module], nn.Module]] = {
        "nothing": lambda model: model,
        "distillation": lambda model: distilled(model, original, learnt, steps, seed),
        "two views (BYOL)": lambda model: self_taught(model, learnt, steps, seed, weight=0.0),
        "mined views (MYOW)": lambda model: mined(model, steps),
        "distillation, then MYOW": lambda model: mined(distilled(model, original, learnt, half, seed), steps - half),
    }
    found = {"the original": scores_of(original, task, learnt)}
    for name, way in ways.items():
        found[name] = scores_of(way(copy.deepcopy(pruned)).eval(), task, learnt)
    return found


def data_of(task: Any) -> Data:
    """What is learnt from, padded to one length."""
    batches = list(task.batches(torch.Generator().manual_seed(0)))
    longest = max(inputs[0].shape[1] for inputs, _ in batches)
    padded = [nn.functional.pad(inputs[0], (0, 0, 0, longest - inputs[0].shape[1])) for inputs, _ in batches]
    lengths, classes = torch.cat([inputs[1] for inputs, _ in batches]), torch.cat([target for _, target in batches])
    return Data(torch.cat(padded), lengths, classes)


def features(model: nn.Module, inputs: Tensor, lengths: Tensor) -> Tensor:
    """What the last layer reads (N, H), with gradients if they are on."""
    seen: list[Tensor] = []
    handle = model.get_submodule("output").register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        model(inputs, lengths)
    finally:
        handle.remove()
    return seen[0]


def scores_of(model: nn.Module, task: Any, learnt: Data) -> tuple[float, float]:
    """Accuracies of a ridge regression on the features, and of the model as it is, on the test part."""
    with torch.no_grad():
        known = features(model, learnt.inputs, learnt.lengths).double()
        mean, deviation = known.mean(0), known.std(0).clamp(min=1e-6)

        def rows(found: Tensor) -> Tensor:
            return nn.functional.pad((found.double() - mean) / deviation, (0, 1), value=1.0)

        x, wanted = rows(known), nn.functional.one_hot(learnt.classes).double()
        ridge = PENALTY * torch.eye(x.shape[1], dtype=torch.float64)
        ridge[-1, -1] = 0.0
        probe = torch.linalg.solve(x.T @ x + ridge, x.T @ wanted)
        found = task.evaluate(lambda inputs, lengths: rows(features(model, inputs, lengths)) @ probe)
        return float(found.mean()), float(task.evaluate(model).mean())


def distilled(model: nn.Module, teacher: nn.Module, data: Data, steps: int, seed: int) -> nn.Module:
    """Plain distillation: outputs to the original's, on inputs as the model's own training disturbs them."""
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(data.lengths), (BATCH,), generator=generator)
        inputs, lengths = data.inputs[chosen], data.lengths[chosen]
        with torch.no_grad():
            goal = teacher(inputs, lengths)
        loss = kl(model(inputs, lengths), goal, 2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def self_taught(model: nn.Module, data: Data, steps: int, seed: int, *, weight: float) -> nn.Module:
    """BYOL, and with a weight mined views: L = (L_views + w L_mined) / (1 + w), as in the paper's section 2.

    L_views: the projection of one view predicts the target network's of another one. L_mined: through a second
    projector and predictor behind the first, it predicts that of one of the nearest neighbours, in what the encoders
    give, of another sample.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    width = features(model, data.inputs[:2], data.lengths[:2]).shape[1]
    online = _Heads(model, width)
    target = copy.deepcopy(online).requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(online.parameters(), RATE)
    deviation = data.inputs.flatten(0, 1).std(0)
    online.eval()  # views are the only noise
    target.eval()
    for step in range(steps):
        chosen = torch.randint(len(data.lengths), (BATCH,), generator=generator)
        views = [_view(data, chosen, deviation, generator) for _ in range(2)]
        mine = [online.projected(*view) for view in views]
        with torch.no_grad():
            goals = [target.projected(*view) for view in views]
        loss = sum(_apart(online.predict(mine[place][1]), goals[1 - place][1]) for place in range(2)) / 2
        risen = min(1.0, max(0.0, (step / steps - STARTS) / (RISEN - STARTS)))
        if weight and risen:
            near = _mined(mine[0][0].detach(), chosen, target, data, generator)
            goal = target.second(near[1])
            predicted = online.second_predict(online.second(mine[0][1]))
            loss = (loss + risen * weight * _apart(predicted, goal)) / (1 + risen * weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.lerp_(fast, 1 - MOMENTUM)
    return model


class _Heads(nn.Module):
    """An encoder with the paper's projectors (256 to 32, 64 to 16) and predictors."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.project, self.predict = _perceptron(width, 256, 32), _perceptron(32, 256, 32)
        self.second, self.second_predict = _perceptron(32, 64, 16), _perceptron(16, 64, 16)

    def projected(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Features and projections of a view."""
        found = features(self.model, inputs, lengths)
        return found, self.project(found)


def _perceptron(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, out))


def _apart(predicted: Tensor, goal: Tensor) -> Tensor:
    return 2 - 2 * nn.functional.cosine_similarity(predicted, goal).mean()


def _view(data: Data, chosen: Tensor, deviation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise, channels that are zero, and up to four first steps cut off."""
    inputs, lengths = data.inputs[chosen], data.lengths[chosen]
    inputs = inputs + NOISE * deviation * torch.randn(inputs.shape, generator=generator)
    kept = torch.rand(len(inputs), 1, inputs.shape[2], generator=generator) >= DROPPED
    shift = int(torch.randint(min(SHIFT, int(lengths.min()) - 1) + 1, (), generator=generator))
    return (inputs * kept)[:, shift:], lengths - shift


def _mined(
    found: Tensor, chosen: Tensor, target: _Heads, data: Data, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Features and target projections of a neighbour of each sample, another one than itself."""
    pool = torch.randperm(len(data.lengths), generator=generator)[:POOL]
    with torch.no_grad():
        theirs, projections = target.projected(data.inputs[pool], data.lengths[pool])
        likeness = nn.functional.normalize(found, dim=1) @ nn.functional.normalize(theirs, dim=1).T
        likeness[chosen[:, None] == pool] = -2.0
        nearest = likeness.topk(NEIGHBOURS, 1).indices
        place = nearest.gather(1, torch.randint(NEIGHBOURS, (len(found), 1), generator=generator)).squeeze(1)
    return theirs[place], projections[place]


if __name__ == "__main__":
    main()
