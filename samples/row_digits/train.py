"""Trains the checkpoints beside it on one thread."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from pictures import RowReader
from safetensors.torch import save_file
from task import Digits, Fashion, Mnist
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from epochs import options_of, train_by_cosine

LEARNING_RATE = 1e-3
EPOCHS = {"fashion": 6, "mnist": 20, "digits": 40}


def train(task: Fashion, epochs: int, seed: int) -> nn.Module:
    """A trained network; neither the validation nor the scored pictures are looked at."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    return train_by_cosine(task, RowReader(), LEARNING_RATE, epochs, generator)


def main() -> None:
    """Train all, or the one asked for, and write them."""
    parser = argparse.ArgumentParser(description="train the checkpoints of this folder")
    parser.add_argument("--only", choices=sorted(EPOCHS), help="train this one alone")
    options = options_of(parser, Path(__file__).parent)
    for name, task in (("fashion", Fashion()), ("mnist", Mnist()), ("digits", Digits())):
        if options.only not in (None, name):
            continue
        net = train(task, EPOCHS[name], options.seed)
        with torch.no_grad():
            held_out, scored = float(task.validate(net).mean()), float(task.evaluate(net).mean())
        path = options.out / f"{name}.safetensors"
        save_file(net.state_dict(), path)
        print(f"{path.name}: {path.stat().st_size} bytes, accuracy {held_out:.4f} validation, {scored:.4f} scored")


if __name__ == "__main__":
    main()
