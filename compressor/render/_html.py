"""`report.html`: one file with everything in it, nothing loaded from elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.render import plots, probe, view
from compressor.render.blocks import MARKS

if TYPE_CHECKING:
    from compressor.report import Report

_TEMPLATE = "report.html.j2"


def html(report: Report) -> str:
    """The whole report as a self-contained page: text of the user's escaped, plots as inline SVG."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("compressor.render").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page: str = environment.from_string(source).render(
        report=report, view=view, form=form, probe=probe, plots=plots.plots(report), marks=MARKS
    )
    return page
