import pytest

from compressor.render import html
from compressor.report import Fact, Report
from tests.report.sample import sample


@pytest.fixture(scope="session")
def report() -> Report:
    return sample()


@pytest.fixture(scope="session")
def page(report) -> str:
    """The report as HTML, drawn once."""
    return html.page(report)


NASTY = (
    '<script>alert("x")</script> & $\\frac{1}{0}$ | `a` [red]b[/red] 日本 '
    "\x1b]52;c;aGVsbG8=\x07\x9b31m\u202e\r\n✓ Limits met"
)
"""Markup of every view; what fills a clipboard, colours, reverses and begins a line on a terminal."""
CHOICES = {"label", "form", "precision", "function", "verdict"}
"""Fields that hold one of a few words."""


@pytest.fixture(scope="session")
def nasty(report) -> Report:
    """The report with every text of it, names of parts and options too, replaced."""
    return _replaced(report)


def _replaced(value):
    """`value` with other text, also as keys unless they are the fields of a record."""
    if isinstance(value, Fact):
        texts = {name: _replaced(getattr(value, name)) for name in type(value).model_fields if name not in CHOICES}
        return value.model_copy(update=texts)
    if isinstance(value, dict):
        return {f"{NASTY}{key}": _replaced(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(item) for item in value)
    return NASTY if isinstance(value, str) else value
