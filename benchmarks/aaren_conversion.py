"""From what should an Aaren start? A causal Transformer, trained here on the Japanese vowels, is converted.

    python benchmarks/aaren_conversion.py [--seeds 3] [--retrain 5]

For each seed: two encoder layers of 64 features and 4 heads, trained for 30 epochs; then each way to begin, its error
(see the report of `aaren`; the mean of both layers, on calibration batches held out), its accuracy on the 370 test
sequences at once, and after a few epochs taught by the original. Nothing was chosen by the test sequences.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.methods.aaren import Aaren
from compressor.methods.base import Context, State
from compressor.methods.retrain import Retrain
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.structure import replace_module
from compressor.progress import Silent
from compressor.task.guard import GuardedTask

sys.path.insert(0, str(Path(__file__).parents[1] / "samples" / "japanese_vowels"))
from task import Gru
from vowels import CHANNELS, SPEAKERS

if TYPE_CHECKING:
    from collections.abc import Mapping


WIDTH, HEADS, LAYERS, LONGEST = 64, 4, 2, 64
EPOCHS, LR = 30, 1e-3
CPU = torch.device("cpu")
NOTHING = "all weights random"
STARTS: Mapping[str, Mapping[str, object]] = {
    NOTHING: {},
    "mean query": {"query": "mean", "distill_steps": 0},
    "fitted query": {"query": "fitted", "distill_steps": 0},
    "mean query, 200 steps": {"query": "mean", "distill_steps": 200},
    "fitted query, 200 steps": {"query": "fitted", "distill_steps": 200},
}


class Causal(nn.Module):
    """Causal encoder layers and the mean over the steps that are there."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.embed = nn.Linear(CHANNELS, WIDTH)
        self.position = nn.Parameter(0.1 * torch.randn(LONGEST, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, SPEAKERS)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, T, 12) and lengths (B,) -> logits (B, 9)."""
        length = features.size(1)
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        absent = torch.arange(length) >= lengths[:, None]  # (B, T)
        padding = torch.zeros(absent.shape).masked_fill(absent, -torch.inf)
        x = self.embed(features) + self.position[:length]
        y = self.encoder(x, mask=mask, src_key_padding_mask=padding, is_causal=True)  # (B, T, WIDTH)
        return self.head(y.masked_fill(absent[..., None], 0.0).sum(1) / lengths[:, None])


class Vowels(Gru):
    """Who said it? The sample's task with another model."""

    outputs: Mapping[str, Mapping[int, str]] = {}

    def __init__(self, seed: int = 0) -> None:
        """Train a model."""
        torch.manual_seed(seed)
        self._model = Causal()
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self._model.parameters(), LR, weight_decay=0.05)
        for _ in range(EPOCHS):
            for inputs, speakers in self.batches(generator):
                optimizer.zero_grad()
                self.loss(self._model(*inputs), speakers).backward()
                nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
                optimizer.step()

    def model(self) -> nn.Module:
        """A copy of it."""
        return copy.deepcopy(self._model)

    def example(self, batch: int, length: int) -> tuple[Tensor, ...]:
        """Normal features."""
        return torch.randn(batch, length, CHANNELS), torch.full((batch,), length)


def accuracy(task: GuardedTask, model: nn.Module) -> float:
    with torch.no_grad():
        return float(task.task.evaluate(model.eval()).mean())


def begin(name: str, model: nn.Module, context: Context) -> tuple[State, float]:
    """The converted model, and its error."""
    if name != NOTHING:
        result = Aaren(**STARTS[name]).apply(State(model), context)
        last = {fact.partition(": ")[0]: error for fact, error in result.facts.items()}  # the last stage of each layer
        return result.state, mean(last.values())
    converted = copy.deepcopy(model)
    torch.manual_seed(0)
    for layer, module in list(converted.named_modules()):
        if isinstance(module, nn.MultiheadAttention):
            fresh = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
            aaren = AarenAttention.from_attention(fresh)
            nn.init.normal_(aaren.query)
            replace_module(converted, layer, aaren)
    return State(converted), float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--retrain", type=int, default=5, help="epochs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STARTS}
    originals = []
    for seed in range(options.seeds):
        task = GuardedTask(Vowels(seed), __file__)
        model = task.model()
        originals.append(accuracy(task, model))
        for name, found in rows.items():
            generator = torch.Generator().manual_seed(seed)
            context = Context(task, model, CPU, generator, Silent())
            state, error = begin(name, model, context)
            trained = Retrain(epochs=options.retrain, lr=LR, schedule="cosine", distill=True).apply(state, context)
            found.append((error, accuracy(task, state.model), accuracy(task, trained.state.model)))
            print(f"seed {seed}, {name}: {found[-1]}", file=sys.stderr, flush=True)
    print(f"original: {mean(originals):.3f} {[round(value, 3) for value in originals]}")
    for name, found in rows.items():
        errors, at_once, retrained = zip(*found, strict=True)
        print(f"{name:25} error {mean(errors):.4f}   at once {mean(at_once):.3f}   retrained {mean(retrained):.3f}")


if __name__ == "__main__":
    main()
