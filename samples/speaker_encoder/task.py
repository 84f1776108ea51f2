"""Is it the same voice? A third-party speaker encoder, scored on real speech; run `fetch.py` first.

The model is that of the package Resemblyzer 0.1.4 (Wan et al., arXiv 1710.10467): three LSTM layers of 256 units and
a Linear layer on the last step, to embeddings of unit length.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from mel import BANDS, WINDOW_FRAMES
from torch import Tensor, nn
from verification import equal_error_rate, trials
from voices import HEARD, SCORED, VALIDATION, WEIGHTS, Voice, cached, load_features

from compressor import Evaluation, Task, load_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.task.contract import Forward

BATCH = 32


class Encoder(nn.Module):
    """Mel power windows to embeddings; the names are those of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        """Windows (B, T, 40) to embeddings (B, 256) of length 1."""
        states = self.lstm(mel)[0]  # (B, T, H)
        return nn.functional.normalize(torch.relu(self.linear(states[:, -1])), dim=1)


@cache
def features() -> dict[str, Tensor]:
    """Windows (W, 160, 40) of each voice, by its name."""
    return {name: torch.from_numpy(windows) for name, windows in load_features().items()}


class SpeakerEncoder(Task):
    """Equal error rate on four voices; distillation hears 22 others, without labels."""

    metric = "equal error rate"
    higher_is_better = False
    inputs: Mapping[str, Mapping[int, str]] = {"mel": {0: "batch", 1: "time"}}
    outputs: Mapping[str, Mapping[int, str]] = {"embedding": {0: "batch"}}
    length = WINDOW_FRAMES
    min_length = 20
    max_length = 400

    def model(self) -> nn.Module:
        """`similarity_weight` and `similarity_bias` belong to the loss that it was trained with."""
        return load_weights(Encoder(), cached(WEIGHTS), key="model_state", ignore=["similarity_*"])

    def example(self, batch: int, length: int) -> tuple[Tensor]:
        """Real frames, from windows strung together."""
        frames = features()[VALIDATION[0].name].flatten(0, 1)  # (W * 160, 40)
        return (frames[torch.arange(batch * length) % len(frames)].view(batch, length, BANDS),)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[tuple[Tensor], None]]:
        """Windows of the heard voices, unlabelled: there is only the original model to learn from."""
        heard = torch.cat([features()[voice.name] for voice in HEARD])
        for chosen in torch.randperm(len(heard), generator=generator).split(BATCH):
            yield (heard[chosen],), None

    def loss(self, outputs: Tensor, target: None) -> Tensor:
        """There are no labels: `retrain` needs `distill: true` and `distill_weight: 1`."""
        raise NotImplementedError("this sample has no labels: retrain with `distill: true` and `distill_weight: 1`")

    def evaluate(self, forward: Forward) -> Evaluation:
        """Over all pairs of recordings of the four scored voices, a 1.6 s window of each.

        The part `two languages, two voices` counts Allison Smith's English and Spanish as two people, which the
        metric itself leaves out.
        """
        embeddings, voices, speakers = embed(forward, SCORED)
        strict = equal_error_rate(*trials(embeddings, voices, speakers))
        return Evaluation(
            value=strict,
            parts={"two languages, two voices": equal_error_rate(*trials(embeddings, voices, voices))},
        )

    def validate(self, forward: Forward) -> float:
        """The same over two voices that are neither heard nor scored."""
        return equal_error_rate(*trials(*embed(forward, VALIDATION)))


def embed(forward: Forward, voices: Sequence[Voice]) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings (W, 256), the voice (W,) and the speaker (W,) of each window."""
    windows = [features()[voice.name] for voice in voices]
    counts = torch.tensor([len(part) for part in windows])
    people = sorted({voice.speaker for voice in voices})
    speaker_of = torch.tensor([people.index(voice.speaker) for voice in voices])
    embeddings = torch.cat([torch.as_tensor(forward(batch)) for batch in torch.cat(windows).split(BATCH)])
    return embeddings, torch.arange(len(voices)).repeat_interleave(counts), speaker_of.repeat_interleave(counts)
