"""Views of a report: a table on the terminal, Markdown and a self-contained HTML page."""

from compressor.render._html import html
from compressor.render._markdown import markdown

__all__ = ["html", "markdown"]
