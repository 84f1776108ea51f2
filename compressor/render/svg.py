"""Plots as inline SVG that takes its colours from the page, so that it fits light and dark.

Figures are made without pyplot, so no window system and no global list of figures is touched. Same report, same SVG.
"""

from __future__ import annotations

import re
import warnings
from html import escape
from typing import TYPE_CHECKING, Any, Final

from compressor.render.text import one_line, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

# Colours that stand for the page's own: each is replaced by a CSS variable in the finished SVG.
INK, MUTED, GRID = "#010203", "#010204", "#010205"
ORIGINAL, COMPRESSED, ZERO = "#010206", "#010207", "#010208"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ORIGINAL: "var(--original)",
    COMPRESSED: "var(--compressed)",
    ZERO: "var(--zero)",
}
_OWN_COLOURS = """
svg { background: #fbfaf7; font-family: system-ui, sans-serif;
  --ink: #1d2326; --muted: #5c676c; --line: #dcdcd4; --original: #7d8b99; --compressed: #0f766e; --zero: #e0b354; }
@media (prefers-color-scheme: dark) { svg { background: #14181a;
  --ink: #e6e8e6; --muted: #9ca8ac; --line: #353d41; --original: #8796a5; --compressed: #3fb8a9; --zero: #b98f3b; } }
"""
_WIDTH_INCHES: Final = 5.2
ON_A_PAGE: Final = 4.3
"""Width of plots on a page, in inches: narrow, so that a phone shows their text large enough."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "compressor",
    "text.parse_math": False,
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def draw(height_inches: float, fill: Callable[[Figure], None], *, width_inches: float = _WIDTH_INCHES) -> str:
    """The SVG of a figure that `fill` draws on."""
    from io import StringIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Names in any script are drawn by the browser's fonts, so matplotlib's own lacking a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width_inches, height_inches))
        fill(figure)
        FigureCanvasSVG(figure)
        sink = StringIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(printable(sink.getvalue()))


def alone(drawn: str, sentence: str) -> str:
    """What `draw` gave as a stand-alone file, light or dark as its viewer is; the sentence is its title."""
    head, rest = drawn.split(">", 1)
    head = head.replace(' aria-hidden="true"', ' xmlns="http://www.w3.org/2000/svg" role="img"')
    return f"{head}>\n<title>{escape(sentence)}</title>\n<style>{_OWN_COLOURS}</style>{rest}\n"


def _for_page(svg: str) -> str:
    """The SVG without prologue, metadata, fixed size, names of its own and colours of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {box.group(0) if box else ""} aria-hidden="true"'
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r"<g id=\"[^\"]*\"", "<g", rest)  # `figure_1` and so on, the same in every plot of the page
    rest = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", rest)  # the family is the page's
    rest = re.sub(r"<!--.*?-->\n?", "", rest, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, variable)
    return f"{head}>{rest}".strip()


def short(name: str, most: int = 34) -> str:
    """A name on one line, cut to its end if it is too long for a plot."""
    name = one_line(name)
    return name if len(name) <= most else "…" + name[-most + 1 :]
