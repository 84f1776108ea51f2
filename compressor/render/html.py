"""`report.html`: one file with everything in it, nothing loaded from elsewhere.

Its only script copies a command; the page says by hash that no other may run, and works without it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from compressor.render.blocks import ALARMS, MARKS
from compressor.render.pages import drawn_in, title
from compressor.render.text import printable
from compressor.report.document import Document

if TYPE_CHECKING:
    from markupsafe import Markup

    from compressor.render.blocks import Block
    from compressor.render.pages import Facts

_CODE: Final = re.compile(r"`([^`\n]+)`")
_MOST_COLUMNS: Final = 4
"""A table with more of them is drawn row by row on a phone."""


def page(facts: Facts) -> str:
    """The whole report as a self-contained page: all text of the facts escaped, plots as inline SVG."""
    from jinja2 import Environment, StrictUndefined

    source, style, script = map(_resource, ("report.html.j2", "report.css", "report.js"))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    rendered: str = environment.from_string(source).render(
        title=title(facts),
        sections=drawn_in("html", facts),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        kind=_kind,
        link=_link,
        prose=_prose,
        marks=MARKS,
        alarms=ALARMS,
        most_columns=_MOST_COLUMNS,
    )
    return rendered


def embedded(facts: Facts) -> str:
    """The page in a frame of its own, so that its style and a notebook's do not meet; it runs its one script alone."""
    from markupsafe import escape

    return (
        f'<iframe srcdoc="{escape(page(facts))}" title="{escape(title(facts))}" sandbox="allow-scripts" '
        'style="width: 100%; height: 42rem; border: 0"></iframe>'
    )


def _resource(name: str) -> str:
    return resources.files("compressor.render").joinpath(name).read_text(encoding="utf-8")


def _finalize(value: Any) -> Any:
    """Text without control characters; what is HTML already stays."""
    return printable(value) if type(value) is str else value


def _kind(block: Block) -> str:
    return type(block).__name__


def _prose(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(printable(text)))))


def _link(file: str) -> str:
    """The address of a file in the page's folder; empty for a name that leads elsewhere."""
    inside = bool(file) and not file.startswith("/") and not {"", ".", ".."} & set(file.split("/"))
    return f"./{quote(printable(file))}" if inside else ""


Document.in_a_frame = embedded
