"""What does the line say? The text-line reader of legere, scored on rendered lines; run `fetch.py` first.

The model is that of the package legere 0.11.0: depthwise separable convolutions, a GRU layer of 128 units in both
directions, and a Linear layer, third-party, trained with the CTC loss on Portuguese text.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lines import HEIGHT, LEARNT, SCORED, VALIDATED, WEIGHTS, WIDTHS, Line, Part, cached, charset, lines, stack
from torch import Tensor, nn

from compressor import Evaluation, Task, load_weights

sys.path.append(str(Path(__file__).parents[1]))

from edits import edit_distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from compressor.task.contract import Forward

BATCH = 16
BLANK = 0
CLASSES = 122
Target = tuple[Tensor, Tensor]
"""Classes of all texts of a batch, one text after the other, and their lengths (B,)."""


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself and one that mixes them, each normalised and rectified."""

    def __init__(self, channels: int, made: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, made, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(made)

    def forward(self, maps: Tensor) -> Tensor:
        maps = torch.relu(self.bn1(self.depthwise(maps)))
        return torch.relu(self.bn2(self.pointwise(maps)))


class Reader(nn.Module):
    """Images of lines to CTC logits; the names are those of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, 2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.blocks = nn.Sequential(
            Separable(24, 48, (2, 2)),
            Separable(48, 64, (1, 1)),
            Separable(64, 96, (2, 1)),
            Separable(96, 128, (1, 1)),
            Separable(128, 160, (2, 1)),
            Separable(160, 192, (2, 1)),
        )
        self.rnn = nn.GRU(192, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, 32, W) in -1..1 to logits (B, T, classes), T = W / 4 rounded up."""
        maps = self.blocks(self.stem(images))  # (B, 192, 1, T)
        states = self.rnn(maps.squeeze(2).transpose(1, 2))[0]  # (B, T, 2 H)
        logits: Tensor = self.head(states)
        return logits


class TextLine(Task):
    """Character error rate on 500 lines, in fonts and of words that retraining never sees."""

    metric = "character error rate"
    higher_is_better = False
    inputs: Mapping[str, Mapping[int, str]] = {"images": {0: "batch", 3: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"logits": {0: "batch", 1: "step"}}
    length = 400
    min_length, max_length = WIDTHS

    def model(self) -> nn.Module:
        return load_weights(Reader(), cached(WEIGHTS), key="model")

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        """A rendered line, repeated or cut to `length` pixels."""
        image = stack(lines(VALIDATED)[:1])[0]  # (1, 32, W)
        columns = torch.arange(batch * length) % image.shape[2]
        return (image[:, :, columns].view(1, HEIGHT, batch, length).permute(2, 0, 1, 3).contiguous(),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], Target]]:
        """The learnt lines; lines of like width go together, so that little is padding."""
        learnt = sorted(lines(LEARNT), key=lambda line: line.pixels.shape[1])
        groups = [learnt[i : i + BATCH] for i in range(0, len(learnt), BATCH)]
        for which in torch.randperm(len(groups), generator=generator).tolist():
            texts = [line.text for line in groups[which]]
            classes = torch.tensor([charset().index(sign) + 1 for text in texts for sign in text])
            yield (stack(groups[which]),), (classes, torch.tensor([len(text) for text in texts]))

    def loss(self, outputs: Tensor, target: Target) -> Tensor:
        """CTC (Graves et al. 2006) of all steps; the padding is paper, which reads as blank."""
        classes, lengths = target
        steps = torch.full((outputs.shape[0],), outputs.shape[1])
        likelihoods = outputs.log_softmax(dim=2).transpose(0, 1)  # (T, B, classes)
        return nn.functional.ctc_loss(likelihoods, classes, steps, lengths, blank=BLANK, zero_infinity=True)

    def evaluate(self, forward: Forward) -> Evaluation:
        return score(forward, SCORED)

    def validate(self, forward: Forward) -> Evaluation:
        return score(forward, VALIDATED)


def score(forward: Forward, part: Part) -> Evaluation:
    """Edits of all lines together by their characters.

    A line's score is its edits by the mean number of characters, so that the mean of the scores is the rate.
    """
    chosen = sorted(lines(part), key=lambda line: line.pixels.shape[1])
    read = [text for i in range(0, len(chosen), BATCH) for text in decode(forward, chosen[i : i + BATCH])]
    edits = torch.tensor([edit_distance(text, line.text) for text, line in zip(read, chosen, strict=True)]).double()
    characters = torch.tensor([len(line.text) for line in chosen]).double()
    fonts = {font: torch.tensor([line.font == font for line in chosen]) for font in sorted({c.font for c in chosen})}
    parts = {font: float(edits[of_font].sum() / characters[of_font].sum()) for font, of_font in fonts.items()}
    return Evaluation(per_sample=edits / characters.mean(), parts=parts)


def decode(forward: Forward, chosen: list[Line]) -> list[str]:
    """The best class of every step; repetitions are one, blanks are none."""
    best = torch.as_tensor(forward(stack(chosen))).argmax(dim=2)  # (B, T)
    texts = []
    for row in best:
        classes = row.unique_consecutive()
        texts.append("".join(charset()[int(index) - 1] for index in classes[classes != BLANK]))
    return texts
