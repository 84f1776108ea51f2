"""Trains `attentive.safetensors`, the checkpoint beside it, on one thread; run `fetch.py` first."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from network import Classifier
from safetensors.torch import save_file
from task import MovieSentiment
from torch import nn

EPOCHS = 8
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1


def train(task: MovieSentiment, seed: int) -> Classifier:
    """A trained network; neither the validation nor the scored sentences are looked at."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = Classifier()
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * sum(1 for _ in task.batches(torch.Generator()))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for inputs, ratings in task.batches(generator):
            optimizer.zero_grad()
            loss = task.loss(net(*inputs), ratings)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        print(f"epoch {epoch} of {EPOCHS}: loss {sum(losses) / len(losses):.4f}", flush=True)
    return net.eval()


def main() -> None:
    """Train it and write it."""
    parser = argparse.ArgumentParser(description="train the checkpoint of this folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=MovieSentiment.weights)
    options = parser.parse_args()
    torch.set_num_threads(1)  # the order of the sums, and so the checkpoint, does not depend on the number of cores
    task = MovieSentiment()
    net = train(task, options.seed)
    with torch.no_grad():
        held_out, scored = float(task.validate(net).mean()), float(task.evaluate(net).mean())
    save_file(net.state_dict(), options.out)
    size = options.out.stat().st_size
    print(f"{options.out.name}: {size} bytes, accuracy {held_out:.4f} validation, {scored:.4f} scored")


if __name__ == "__main__":
    main()
