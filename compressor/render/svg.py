"""Drawings as SVG that take their colours from the page, so that they fit light and dark; values show on hover.

Lengths are CSS pixels at the width at which a phone shows a drawing, so that its text can be read there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final, Literal

from compressor.render.text import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

INK, MUTED, GRID = "var(--ink)", "var(--muted)", "var(--line)"
ORIGINAL, COMPRESSED, ZERO = "var(--original)", "var(--compressed)", "var(--zero)"
WIDTH: Final = 340
"""Of a drawing on a page."""
ALONE: Final = 480
"""Of a drawing in a file of its own."""
TEXT: Final = 12
_LETTER: Final = 0.56
"""Mean width of a letter, in parts of its size."""
_OWN_COLOURS: Final = """
svg { background: #fbfaf7; font-family: system-ui, sans-serif;
  --ink: #1d2326; --muted: #5c676c; --line: #dcdcd4; --original: #7d8b99; --compressed: #0f766e; --zero: #e0b354; }
@media (prefers-color-scheme: dark) { svg { background: #14181a;
  --ink: #e6e8e6; --muted: #9ca8ac; --line: #353d41; --original: #8796a5; --compressed: #3fb8a9; --zero: #b98f3b; } }
"""

Anchor = Literal["start", "middle", "end"]


class Drawing:
    """Marks on a plane, x to the right and y down; each may say on hover what it stands for."""

    def __init__(self, height: float, width: float = WIDTH) -> None:
        """An empty one."""
        self.width, self.height = width, height
        self._marks: list[str] = []

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, *, title: str = "", opacity: float = 1
    ) -> None:
        """A rectangle, at least a hair wide."""
        place = f'x="{_number(x)}" y="{_number(y)}" width="{_number(max(width, 0.5))}" height="{_number(height)}"'
        self._mark(f'rect {place} fill="{fill}"{_opacity(opacity)}', "rect", title)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        stroke: str,
        *,
        width: float = 1,
        title: str = "",
        opacity: float = 1,
    ) -> None:
        """Straight lines from point to point."""
        path = "L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self._mark(f'path d="M{path}" fill="none" stroke="{stroke}"{_stroke(width)}{_opacity(opacity)}', "path", title)

    def arc(
        self, start: tuple[float, float], end: tuple[float, float], stroke: str, *, bend: float, opacity: float
    ) -> None:
        """A line bent to its side by a part of its length."""
        (x, y), (other_x, other_y) = start, end
        middle = (x + other_x) / 2 - bend * (other_y - y), (y + other_y) / 2 + bend * (other_x - x)
        numbers = " ".join(map(_number, (*middle, other_x, other_y)))
        self._mark(
            f'path d="M{_number(x)} {_number(y)}Q{numbers}" fill="none" stroke="{stroke}"{_opacity(opacity)}', "path"
        )

    def dot(
        self,
        x: float,
        y: float,
        radius: float,
        colour: str,
        *,
        title: str = "",
        opacity: float = 1,
        hollow: bool = False,
    ) -> None:
        """A filled circle, or a ring."""
        paint = f'fill="none" stroke="{colour}"' if hollow else f'fill="{colour}"'
        place = f'cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
        self._mark(f"circle {place} {paint}{_opacity(opacity)}", "circle", title)

    def text(
        self, x: float, y: float, text: str, *, anchor: Anchor = "start", size: float = TEXT, fill: str = MUTED
    ) -> None:
        """One line of text; y is that of its base line."""
        side = "" if anchor == "start" else f' text-anchor="{anchor}"'
        place = f'x="{_number(x)}" y="{_number(y)}" font-size="{_number(size)}"'
        self._marks.append(f'<text {place}{side} fill="{fill}">{escape(one_line(text))}</text>')

    def on_page(self) -> str:
        """The drawing as part of a page, which names it."""
        return f'<svg viewBox="{self._box}" aria-hidden="true">{"".join(self._marks)}</svg>'

    def alone(self, sentence: str) -> str:
        """The drawing as a file, light or dark as its viewer is; the sentence is its title."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="{self._box}">'
        marks = "\n".join(self._marks)
        return f"{head}\n<title>{escape(one_line(sentence))}</title>\n<style>{_OWN_COLOURS}</style>\n{marks}\n</svg>\n"

    @property
    def _box(self) -> str:
        return f"0 0 {_number(self.width)} {_number(self.height)}"

    def _mark(self, opening: str, name: str, title: str = "") -> None:
        said = f"<title>{escape(one_line(title))}</title>" if title else ""
        self._marks.append(f"<{opening}>{said}</{name}>" if said else f"<{opening}/>")


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` as places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value; the middle if all values are one."""
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + part * (self.end - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values inside, at most so many of them."""
        span = self.high - self.low
        if not span > 0:
            return [self.low]
        power: float = 10.0 ** math.floor(math.log10(span / most))
        step = next(step for factor in (1, 2, 5, 10) if span / (step := factor * power) <= most)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def around(values: Sequence[float], margin: float = 0.12) -> tuple[float, float]:
    """The smallest and the largest value with room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return low - room, high + room


def tick(value: float, step: float = 0.0) -> str:
    """A value beside an axis: 0.25, 40 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g} {unit}"
    return f"{0.0 if abs(value) < abs(step) / 1e6 else value:.4g}"


def short(name: str, most: int = 34) -> str:
    """A name on one line, cut to its end if it is too long for a plot."""
    name = one_line(name)
    return name if len(name) <= most else "…" + name[-most + 1 :]


def begun(name: str, most: int) -> str:
    """As `short`, cut to its beginning."""
    name = one_line(name)
    return name if len(name) <= most else name[: most - 1] + "…"


def fitting(width: float, size: float = TEXT) -> int:
    """How many letters of a size have room in a width."""
    return max(2, int(width / (size * _LETTER)))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _opacity(opacity: float) -> str:
    return "" if opacity == 1 else f' opacity="{_number(opacity)}"'


def _stroke(width: float) -> str:
    return "" if width == 1 else f' stroke-width="{_number(width)}"'
