"""Trains the checkpoint beside it on one thread, and the control that sees single frames."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from clips import FrameReader, SingleFrames
from safetensors.torch import save_file
from task import MovingDigits
from torch import nn

sys.path.append(str(Path(__file__).parents[1]))

from epochs import options_of, train_by_cosine

LEARNING_RATE = 3e-3
EPOCHS = 16


def train(net: nn.Module, epochs: int, seed: int) -> nn.Module:
    """A trained network; neither the validation nor the scored digits are looked at."""
    return train_by_cosine(MovingDigits(), net, LEARNING_RATE, epochs, torch.Generator().manual_seed(seed))


def main() -> None:
    """Train both, and write the one with the LSTM."""
    parser = argparse.ArgumentParser(description="train the checkpoint of this folder")
    options = options_of(parser, Path(__file__).parent)
    task = MovingDigits()
    for kind in (FrameReader, SingleFrames):
        torch.manual_seed(options.seed)
        net = train(kind(), EPOCHS, options.seed)
        with torch.no_grad():
            held_out, scored = float(task.validate(net).mean()), float(task.evaluate(net).mean())
        print(f"{kind.__name__}: accuracy {held_out:.4f} validation, {scored:.4f} scored")
        if kind is FrameReader:
            save_file(net.state_dict(), options.out / "reader.safetensors")


if __name__ == "__main__":
    main()
