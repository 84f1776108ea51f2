"""Draws `docs/images/architecture.svg`: the rooms, as the import contract in `pyproject.toml` orders them, and one run.

`python docs/generate.py` writes the file, so the picture cannot differ from the contract that the checks enforce.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = (
    ("cli", "`compressor run` reads its arguments"),
    ("recipe", "the YAML becomes a frozen Recipe, or an error with its place"),
    ("task", "model, data and metric come from the user's file, behind a guard"),
    ("pipeline", "the original is evaluated and exported, before anything is trained"),
    ("methods", "each step checks the model and changes a copy of it"),
    ("surgery", "units, heads or layers leave; every removal is compared with the original"),
    ("training", "retraining, with the original as teacher"),
    ("exporters", "torch.export, ONNX, rounding, phone formats; one file per entry of `exports`"),
    ("onnx_graphs", "graphs are simplified, and fitted to a target"),
    ("runtimes", "every file runs in its own runtime, in a process of its own"),
    ("measure", "agreement with PyTorch, the metric on the file, bytes, milliseconds"),
    ("report", "facts are frozen, limits compared, report.json written last"),
    ("render", "the table, Markdown and HTML are views of the report"),
)
"""(room, what happens there) in the order of one run."""

_WIDE, _LEFT, _GAP, _LINE = 1180, 700, 8, 13
_LEGEND = _LEFT + 40
_STYLE = (
    "text{font-family:Helvetica,Arial,sans-serif;font-size:12px;fill:#333}.name{font-weight:bold;font-size:14px}"
    ".room{fill:#eef1fb;stroke:#5c6bc0}.outside{fill:#fff3e0;stroke:#ef6c00}.stop{fill:#3949ab}"
    ".number{fill:#fff;font-weight:bold;text-anchor:middle}.title{font-size:16px;font-weight:bold}"
)


def svg() -> str:
    """The picture as SVG text."""
    parts = [_text(20, 28, "Rooms: each imports only what is below it", "title")]
    y = 46
    for row in (["exporters"], *layers()):
        width = (_LEFT - 20 - _GAP * (len(row) - 1)) / len(row)
        texts = [textwrap.wrap(purpose(room), int((width - 30) / 5.9)) for room in row]
        high = 32 + _LINE * max(map(len, texts))
        for column, (room, lines) in enumerate(zip(row, texts, strict=True)):
            parts += _box(room, lines, (20 + column * (width + _GAP), y, width, high))
        y += high + _GAP
    legend, end = _run()
    size = f'width="{_WIDE}" height="{max(y, end) + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {max(y, end) + 10}" {size}>'
    return (
        "\n".join([head, f"<style>{_STYLE}</style>", f'<rect {size} fill="#fff"/>', *parts, *legend, "</svg>"]) + "\n"
    )


def layers() -> list[list[str]]:
    """The rooms of `compressor` by the layers of the import contract, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    ordered = next(contract for contract in contracts if contract["type"] == "layers")["layers"]
    return [[room.strip().removeprefix("compressor.") for room in layer.split("|")] for layer in ordered]


def purpose(room: str) -> str:
    """First sentence of a room's docstring."""
    folder = ROOT / room if room == "exporters" else ROOT / "compressor" / room
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    documentation = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return documentation.partition("\n")[0].partition(". ")[0].rstrip(".").replace("`", "")


def _box(room: str, lines: list[str], place: tuple[float, float, float, float]) -> list[str]:
    x, y, width, high = place
    kind = "outside" if room == "exporters" else "room"
    parts = [f'<rect class="{kind}" x="{x:g}" y="{y}" width="{width:g}" height="{high}" rx="6"/>']
    for number in [number for number, (where, _) in enumerate(RUN, start=1) if where == room]:
        parts += _stop(x + width - 16, y + 16, number)
    parts.append(_text(x + 10, y + 20, f"{room}/" if (ROOT / "compressor" / room).is_dir() else room, "name"))
    return parts + [_text(x + 10, y + 36 + line * _LINE, text) for line, text in enumerate(lines)]


def _run() -> tuple[list[str], int]:
    """The legend, and where it ends."""
    parts = [_text(_LEGEND, 28, "The way of one run", "title")]
    y = 60
    for number, (room, happens) in enumerate(RUN, start=1):
        parts += _stop(_LEGEND + 12, y, number)
        parts.append(_text(_LEGEND + 34, y + 4, room, "name"))
        for line in textwrap.wrap(happens.replace("`", ""), 58):
            y += 17
            parts.append(_text(_LEGEND + 34, y + 4, line))
        y += 40
    return parts, y


def _stop(x: float, y: float, number: int) -> list[str]:
    return [
        f'<circle class="stop" cx="{x:g}" cy="{y}" r="11"/>',
        f'<text class="number" x="{x:g}" y="{y + 4}">{number}</text>',
    ]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y}"{f" class={kind!r}" if kind else ""}>{escape(text)}</text>'
