"""Name a series, or go on with it: small causal Transformers on six tasks, for methods that need causal attention.

`--task samples/time_series/task.py` is the Japanese vowels; `:Motions`, `:Gun`, `:Power`, `:Weather96` and
`:Weather192` behind it are the others. The weather needs `fetch.py` first.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from bundled import Batch, Set, correct, split
from causal import Classifier, Forecaster
from torch import Tensor, nn
from weather import CHANNELS, CLOCK, WINDOW, windows

from compressor import Evaluation, Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

HERE = Path(__file__).parent
BATCH, WEATHER_BATCH = 16, 32


class Series(Task):
    """What all of them share: a network of the task's own and the weights beside this file."""

    weights: str
    epochs: int
    """Passes of the training that made them."""
    learning_rate: float
    """Its highest one."""

    @abstractmethod
    def network(self) -> nn.Module:
        """With random weights, and what is read off the training data in its buffers."""

    def model(self) -> nn.Module:
        return load_weights(self.network(), HERE / self.weights)


class Vowels(Series):
    """Which of nine men says /ae/: 12 channels, 7 to 29 steps, 270 series to learn from and 370 to score."""

    inputs: Mapping[str, Mapping[int, str]] = {"frames": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch"}}
    length, min_length, max_length = 16, 1, 128
    weights, epochs, learning_rate = "vowels.safetensors", 40, 3e-3
    series = Set("JapaneseVowels", frame=3, hop=1)

    def network(self) -> Classifier:
        (frames, lengths), classes = split(self.series, "train")
        net = Classifier(frames.shape[2], int(classes.max()) + 1)
        real = frames[torch.arange(frames.shape[1]) < lengths[:, None]]  # (steps, F), without the padding
        net.mean.copy_(real.mean(dim=0))
        net.deviation.copy_(real.std(dim=0))
        return net

    def example(self, batch: int, length: int) -> tuple[Tensor, Tensor]:
        """Random frames as large as real ones."""
        (frames, _), _ = split(self.series, "train")
        random = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, length + 1, (batch,), generator=random)
        lengths[0] = length
        return frames.std() * torch.randn(batch, length, frames.shape[2], generator=random), lengths

    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        (frames, lengths), classes = split(self.series, "train")
        for chosen in torch.randperm(len(classes), generator=generator).split(BATCH):
            longest = int(lengths[chosen].max())
            yield (frames[chosen, :longest], lengths[chosen]), classes[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, target, label_smoothing=0.1)

    def evaluate(self, forward: Forward) -> Tensor:
        return correct(forward, split(self.series, "test"))

    def validate(self, forward: Forward) -> Tensor:
        return correct(forward, split(self.series, "validation"))


class Motions(Vowels):
    """Walking, running, standing or badminton, by a watch that feels 6 channels of motion: 40 series to score."""

    length = 50
    weights, epochs = "motions.safetensors", 60
    series = Set("BasicMotions", frame=5, hop=2)


class Gun(Vowels):
    """A gun or a finger, by the hand's position over 150 samples: 50 series to learn from, 150 to score."""

    length = 50
    weights, epochs = "gun.safetensors", 80
    series = Set("GunPoint", frame=10, hop=3)


class Power(Vowels):
    """October to March or April to September, by Italy's electricity of 24 hours: 1,029 series to score."""

    length = 24
    weights, epochs = "power.safetensors", 80
    series = Set("ItalyPowerDemand", frame=3, hop=1)


class Weather96(Series):
    """Four days of weather in New York to the four that follow, in standard deviations of the training part."""

    metric = "mean squared error"
    higher_is_better = False
    inputs: Mapping[str, Mapping[int, str]] = {"window": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"forecast": {0: "batch"}}
    length, min_length, max_length = WINDOW, 2, 4 * WINDOW
    weights, epochs, learning_rate = "weather96.safetensors", 2, 1e-3
    horizon = 96

    def network(self) -> Forecaster:
        return Forecaster(len(CHANNELS), CLOCK, self.horizon)

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        random = torch.Generator().manual_seed(0)
        return (torch.randn(batch, length, len(CHANNELS) + CLOCK, generator=random),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], Tensor]]:
        """Every sixth window, from another hour on in each epoch."""
        known, ahead = windows("train", self.horizon, 6, offset=int(torch.randint(6, (), generator=generator)))
        for chosen in torch.randperm(len(known), generator=generator).split(WEATHER_BATCH):
            yield (known[chosen],), ahead[chosen]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs, target)

    def evaluate(self, forward: Forward) -> Evaluation:
        """No interval: windows overlap, and the three airports have one weather."""
        return errors(forward, *windows("test", self.horizon, 5))

    def validate(self, forward: Forward) -> Evaluation:
        return errors(forward, *windows("validation", self.horizon, 5))


class Weather192(Weather96):
    """The eight days that follow."""

    weights = "weather192.safetensors"
    horizon = 192


def errors(forward: Forward, known: Tensor, ahead: Tensor) -> Evaluation:
    """Mean squared and mean absolute error of the forecasts (N, horizon, channels) and, as a part, the second one."""
    found = torch.cat([torch.as_tensor(forward(window)) for window in known.split(8 * WEATHER_BATCH)])
    difference = found - ahead
    return Evaluation(
        value=float(difference.square().mean()), parts={"mean absolute error": float(difference.abs().mean())}
    )


TASKS: Mapping[str, type[Series]] = {
    "vowels": Vowels,
    "motions": Motions,
    "gun": Gun,
    "power": Power,
    "weather96": Weather96,
    "weather192": Weather192,
}
