"""The first hour as a real terminal shows it: a recording as text, and pictures of it.

    python docs/terminal.py FOLDER                       # docs/results/terminal.md and docs/images/terminal.png
    python docs/terminal.py FOLDER --columns 80 --look   # pictures of every command into FOLDER, nothing in docs

The commands of the README run in a fresh folder inside tmux, which is the terminal: lines break where its window ends,
and what a bar draws over is gone. Needs tmux, and Chromium for pictures.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compressor.runtimes.workers.chromium import Browser, find  # noqa: E402

PAGE: Final = ROOT / "docs" / "results" / "terminal.md"
PICTURE: Final = ROOT / "docs" / "images" / "terminal.png"
MODEL: Final = """\
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self, features=40, units=96, tags=12):
        super().__init__()
        self.front = nn.Conv1d(features, 48, 5, padding=2)
        self.rnn = nn.GRU(48, units, batch_first=True)
        self.out = nn.Linear(units, tags)

    def forward(self, frames):
        states, _ = self.rnn(torch.relu(self.front(frames.transpose(1, 2))).transpose(1, 2))
        return self.out(states)
"""
COMMANDS: Final = (
    "compressor init model.py:Tagger --checkpoint tagger.pt",
    "compressor inspect --task task.py",
    "compressor export --task task.py --precision int8 --out files",
    "compressor run recipe.yaml --task task.py --out runs/first --quick",
    "compressor run recipe.yaml --task task.py --out runs/first",
)
HEAD: Final = """# The first commands in a terminal

What a terminal of {columns} columns shows of the README's *Your own model*, from an empty folder: written by
`python docs/terminal.py runs/terminal`. Bars that are gone when the work is done are not in it; the model has random
weights, so fidelity says nothing about a trained one. {processors} processors, average load {load:.0f}.

![The terminal after an export](../images/terminal.png)

"""
_LINES: Final = 400
"""Of the window: what a command prints must fit."""
_LONGEST_SECONDS: Final = 1800.0


@dataclass(frozen=True)
class Shown:
    """What the terminal shows of one command."""

    command: str
    plain: str
    coloured: str


def main() -> None:
    """Record the commands."""
    parser = argparse.ArgumentParser(description="Record the first commands in a terminal.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--look", action="store_true", help="pictures of every command into FOLDER, nothing in docs")
    options = parser.parse_args()
    if shutil.which("tmux") is None:
        sys.exit("no tmux found; on Debian: apt-get install tmux")
    folder = options.folder.resolve()
    folder.mkdir(parents=True)
    prepare(folder)
    with Terminal(folder, options.columns) as terminal:
        shown = [terminal.show(command) for command in COMMANDS]
    if options.look:
        for number, one in enumerate(shown):
            take(one, options.columns, folder / f"{number}.png")
        return
    head = HEAD.format(columns=options.columns, processors=os.cpu_count(), load=os.getloadavg()[2])
    parts = [f"```console\n{one.plain}\n```\n" for one in shown]
    PAGE.write_text(head + "\n".join(parts), encoding="utf-8")
    take(shown[2], options.columns, PICTURE)


def prepare(folder: Path) -> None:
    """A model and its weights."""
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    make = "import torch, model; torch.manual_seed(0); torch.save(model.Tagger().state_dict(), 'tagger.pt')"
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)


class Terminal:
    """A shell in a window of tmux, of a server of its own."""

    def __init__(self, folder: Path, columns: int) -> None:
        """The shell starts in `folder`; `compressor` is that of this checkout."""
        self._name = f"recording-{os.getpid()}"
        tool = f'compressor() {{ {sys.executable} -m compressor.cli "$@"; }}'
        (folder / ".shell").write_text(
            f"PS1='$ '\nexport PYTHONPATH={ROOT}\n{tool}\nPROMPT_COMMAND='tmux -L {self._name} wait-for -S prompt'\n",
            encoding="utf-8",
        )
        self._size = ["-x", str(columns), "-y", str(_LINES)]
        self._folder = folder

    def __enter__(self) -> Terminal:
        """Open the window."""
        self._tmux("new-session", "-d", *self._size, "-c", str(self._folder), "bash --rcfile .shell -i")
        self._wait()
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self._tmux("kill-server")

    def show(self, command: str) -> Shown:
        """Type a command and wait for the next prompt."""
        self._tmux("send-keys", "clear", "Enter")
        self._wait()
        self._tmux("send-keys", command, "Enter")
        self._wait()
        time.sleep(0.5)  # the prompt is drawn after it is told
        return Shown(command, self._screen(), self._screen("-e"))

    def _screen(self, *options: str) -> str:
        lines = self._tmux("capture-pane", "-p", *options).rstrip().split("\n")
        return "\n".join(line.rstrip() for line in lines[:-1]).rstrip()  # the last one is the next prompt

    def _wait(self) -> None:
        self._tmux("wait-for", "prompt")

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._name, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=_LONGEST_SECONDS,
        )
        return done.stdout


def take(shown: Shown, columns: int, path: Path) -> None:
    """A picture of a screen."""
    program = find()
    if program is None:
        sys.exit("no Chromium found; on Debian: apt-get install chromium")
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(shown.coloured), soft_wrap=True)
    html = console.export_html(theme=DIMMED_MONOKAI, inline_styles=True, code_format=_PAGE)
    page = path.with_suffix(".html")
    page.write_text(html, encoding="utf-8")
    height = 19 * (shown.plain.count("\n") + 1) + 32
    try:
        with Browser(program) as browser:
            browser.open(page, width=9 * columns + 32, height=height)
            path.write_bytes(browser.picture(whole=False))
    finally:
        page.unlink()


_PAGE: Final = """<!DOCTYPE html><meta charset="utf-8"><style>
body {{ margin: 16px; background: {background}; color: {foreground}; }}
pre {{ margin: 0; font: 14.5px/19px "DejaVu Sans Mono", "Liberation Mono", Menlo, monospace; }}
</style><pre>{code}</pre>"""


if __name__ == "__main__":
    main()
