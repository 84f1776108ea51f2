"""Trains a checkpoint of this folder, `attentive` or `encoder.safetensors`, on one thread; run `fetch.py` first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from network import Classifier, TransformerClassifier
from safetensors.torch import save_file
from task import Encoder, MovieSentiment
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from epochs import options_of, train_epochs

EPOCHS = 8
WEIGHT_DECAY = 0.1
NETWORKS: dict[str, tuple[type[MovieSentiment], type[nn.Module], float]] = {
    "gru": (MovieSentiment, Classifier, 3e-3),
    "encoder": (Encoder, TransformerClassifier, 2e-3),
}
"""Name -> task, network and highest learning rate."""


def train(task: MovieSentiment, net: nn.Module, peak: float, seed: int) -> nn.Module:
    """The network trained; neither the validation nor the scored sentences are looked at."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), peak, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * sum(1 for _ in task.batches(torch.Generator()))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
    return train_epochs(task, net, optimizer, schedule, epochs=EPOCHS, generator=generator, clip=1.0)


def main() -> None:
    """Train it and write it."""
    parser = argparse.ArgumentParser(description="train the checkpoint of this folder")
    parser.add_argument("--network", choices=NETWORKS, default="gru")
    options = options_of(parser)
    kind, network, peak = NETWORKS[options.network]
    task = kind()
    torch.manual_seed(options.seed)
    net = train(task, network(), peak, options.seed)
    with torch.no_grad():
        held_out, scored = float(task.validate(net).mean()), float(task.evaluate(net).mean())
    out: Path = options.out or task.weights
    save_file(net.state_dict(), out)
    size = out.stat().st_size
    print(f"{out.name}: {size} bytes, accuracy {held_out:.4f} validation, {scored:.4f} scored")


if __name__ == "__main__":
    main()
