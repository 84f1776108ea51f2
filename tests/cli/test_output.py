"""Colour is for terminals, and changes no word."""

import io
from pathlib import Path

from compressor.cli.output import coloured, paint

ROOT = Path(__file__).parents[2]


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_colour_is_for_terminals_that_want_it(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(Screen())
    assert not coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured(Screen())


def test_colour_changes_no_word_of_an_error():
    text = "error: it\n --> recipe.yaml:4:5\n4 |     a: 1\n  |     ^\nhint: do that"
    painted = paint(text)
    assert painted.startswith("\x1b[1;31merror\x1b[0m")
    for code in ("\x1b[1;31m", "\x1b[1;32m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"):
        painted = painted.replace(code, "")
    assert painted == text
