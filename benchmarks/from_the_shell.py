"""What commands take from the shell, in fresh processes, beside what PyTorch alone takes.

    python benchmarks/from_the_shell.py FOLDER [--rounds 5] [--quickstart]

All commands are run once a round, one after the other. Shown are the least processor time of the process and its
children over the rounds (other programs add to it, nothing takes away), and the least time by the clock.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = """\
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(12, 64, batch_first=True), nn.Linear(64, 9)

    def forward(self, features):
        return self.out(self.rnn(features)[0])
"""
BARE = """\
import torch
from torch import nn

model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 9)).eval()
"""
BY_PYTORCH = f'{BARE}torch.onnx.export(model, (torch.randn(2, 12),), "bare.onnx", dynamo=True, verbose=False)\n'
BY_US = f'{BARE}import compressor\n\ncompressor.export(model, (torch.randn(2, 12),), "ours.onnx")\n'
EXPORT = ("export", "--task", "task.py")
QUICKSTART = f"run quickstart --task {ROOT}/samples/japanese_vowels/task.py --out quickstart --force"


def main() -> None:
    """Run everything and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Seconds from the shell.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quickstart", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    tool = [sys.executable, "-m", "compressor.cli"]
    seconds([*tool, "init", "model.py", "--force"], folder)
    commands = {
        "`import torch`": [sys.executable, "-c", "import torch"],
        "`torch.onnx.export` of two Linear layers": [sys.executable, "-c", BY_PYTORCH],
        "`compressor.export` of the same": [sys.executable, "-c", BY_US],
        "`compressor export`, a GRU of 64": [*tool, *EXPORT, "--out", "files"],
        "the same, `--format onnx,ort`": [*tool, *EXPORT, "--format", "onnx,ort", "--out", "both"],
    }
    if arguments.quickstart:
        commands["the quickstart"] = [*tool, *QUICKSTART.split()]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            taken[name].append(seconds(command, folder))
    print("| | processor, s | by the clock, s |\n|---|---|---|")
    for name, both in taken.items():
        processor, clock = (min(values) for values in zip(*both, strict=True))
        print(f"| {name} | {processor:.1f} | {clock:.1f} |")


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Processor and clock of a command that must succeed, its children included."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):  # 1: a limit is missed
        raise SystemExit(f"{' '.join(command)[:80]} ended with {code}")
    return usage.ru_utime + usage.ru_stime, time.monotonic() - started


if __name__ == "__main__":
    main()
