"""The first hour with third-party trained models, as a terminal shows it: from `pip install` to a pruned file.

    python benchmarks/first_hour.py FOLDER              # writes docs/results/first-hour.md; FOLDER keeps what was made
    python benchmarks/first_hour.py FOLDER --only beats

Packages are installed by name and exact version into FOLDER, without what they depend on; nothing of them is in this
repository. The guide docs/guides/ten-minutes.md tells what a person does between the commands.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "first-hour.md"
SECTION = re.compile(r"^## ", re.MULTILINE)
HEAD = """# The first hour, as the terminal shows it

Written by `python benchmarks/first_hour.py runs/first-hour`, all of it in one go; [the
guide](../guides/ten-minutes.md) says what it is about. `$` is a command. What follows is all that it prints where no
terminal is attached, its exit code if that is not 0, and the seconds that it took: by the clock, and of the processor.

{conditions}
Sizes, fidelity and agreement do not depend on how busy a machine is; latencies and seconds by the clock do. What
commands cost by themselves, before and after: [From the shell](speeds.md#from-the-shell).
"""
EMISSIONS = """\
from arabic_morph_segmenter.segmenter import ArabicMorphSegmenter
from torch import nn


class Emissions(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ArabicMorphSegmenter().model

    def forward(self, input_ids):  # what the CRF decodes
        states, _ = self.net.lstm(self.net.embedding(input_ids))
        return self.net.classifier(states)
"""
BEATS = """\
from BeatNet.model import BDA


class Beats(BDA):
    def forward(self, data):  # each call starts from zeros
        self.hidden = self.cell = data.new_zeros(self.num_layers, data.shape[0], self.dim_hd)
        return super().forward(data)
"""


@dataclass(frozen=True)
class Model:
    """One third-party model."""

    title: str
    packages: tuple[str, ...]
    failing: str = ""
    """What a user tries first, and is told why it does not do."""
    init: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that the user writes after that."""
    edits: tuple[tuple[str, str], ...] = ()
    """What the user changes in the task, from and to."""


_BEATNET: Final = "--checkpoint packages/BeatNet/models/model_1_weights.pt"
MODELS: Final[Mapping[str, Model]] = {
    "beats": Model(
        "BeatNet: beats and downbeats in music (a convolution and two LSTM layers)",
        ("BeatNet==1.1.3",),
        failing=f"compressor init \"BeatNet.model:BDA(272, 150, 2, 'cpu')\" {_BEATNET}",
        init=f"compressor init \"beats.py:Beats(272, 150, 2, 'cpu')\" {_BEATNET}",
        files={"beats.py": BEATS},
    ),
    "segmenter": Model(
        "arabic-morph-segmenter: parts of words (two BiLSTM layers and a CRF)",
        ("arabic-morph-segmenter==0.1.0", "pytorch-crf==0.7.2"),
        failing='compressor init "arabic_morph_segmenter.segmenter:ArabicMorphSegmenter().model"',
        init="compressor init emissions.py",
        files={"emissions.py": EMISSIONS},
    ),
    "diacritizer": Model(
        "arabic-diacritizer: vowel signs (three BiLSTM layers and additive attention)",
        ("arabic-diacritizer==1.0.0",),
        init='compressor init "diacritize.baseline.model:BiLSTMDiacritizer.from_pretrained()"',
        edits=(("max_length = 1, 512", "max_length = 1, 128"),),
    ),
}


def main() -> None:
    """Run the models that are asked for and write their sections of the page."""
    parser = argparse.ArgumentParser(description="The first hour with third-party trained models.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=MODELS, action="append")
    arguments = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else HEAD
    sections = {section.partition("\n")[0]: section for section in SECTION.split(text)[1:]}
    started = datetime.now(UTC)
    names = arguments.only or list(MODELS)
    for name in names:
        model = MODELS[name]
        sections[model.title] = f"{model.title}\n\n```console\n{session(model, arguments.folder / name)}```\n\n"
    known = [sections[model.title] for model in MODELS.values() if model.title in sections]
    head = HEAD.format(conditions=conditions(started, names))
    PAGE.write_text(head + "".join(f"\n## {section.rstrip()}\n" for section in known), encoding="utf-8")


def conditions(started: datetime, names: Collection[str]) -> str:
    """When and on what: the load is the number of processes that want a processor."""
    from importlib.metadata import version

    minutes = (datetime.now(UTC) - started).total_seconds() / 60
    models = "all models" if set(names) == set(MODELS) else f"of the models last {', '.join(names)}"
    return (
        f"{started:%Y-%m-%d}, {models}, {minutes:.0f} minutes; {os.cpu_count()} processors, average load "
        f"{os.getloadavg()[2]:.0f} in the last 15 of them; PyTorch {version('torch')}, "
        f"ONNX Runtime {version('onnxruntime')}."
    )


def session(model: Model, folder: Path) -> str:
    """What the terminal shows for one model, in an empty folder."""
    folder.mkdir(parents=True)
    told = run(f"pip install --quiet --no-deps --target packages {' '.join(model.packages)}", folder)
    if model.failing:
        told += run(model.failing, folder)
    for name, text in model.files.items():
        (folder / name).write_text(text, encoding="utf-8")
        told += f"$ cat {name}\n{text}\n"
    told += run(model.init, folder)
    task = folder / "task.py"
    for before, after in model.edits:
        text = task.read_text(encoding="utf-8")
        assert before in text, f"the task has no `{before}`"
        task.write_text(text.replace(before, after), encoding="utf-8")
        told += f"$ sed -i 's/{before}/{after}/' task.py\n\n"
    told += run("compressor export --task task.py --precision int8 --out files", folder)
    told += run("compressor run recipe.yaml --task task.py --out runs/first --quick", folder)
    return told + run("compressor run recipe.yaml --task task.py --out runs/first", folder)


def run(command: str, folder: Path) -> str:
    """The command, what it prints, and what it took."""
    print(command, flush=True)
    words = shlex.split(command)
    if words[0] == "compressor":
        words[:1] = [sys.executable, "-m", "compressor.cli"]
    else:
        words[:1] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]  # errors only
    paths = [str(folder / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "140"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    printed = done.stdout.replace(f"{folder.resolve()}{os.sep}", "").replace(sys.prefix, "…")
    ending = f"exit code {done.returncode}; " if done.returncode else ""
    return f"$ {command}\n{printed}[{ending}{time.monotonic() - started:.0f} s, processor {spent:.0f} s]\n\n"


if __name__ == "__main__":
    main()
