"""Colour is for terminals, and changes no word."""

import io
import re
import sys
from pathlib import Path

import pytest
import rich.text

from compressor.cli.output import coloured, columns, complain, emit, emit_json, emit_rich, fitted, paint, say, tell
from compressor.cli.progress import Terminal
from compressor.errors import CompressorError, Place
from compressor.render.text import printable

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
    painted = "\n".join(paint(line) for line in text.split("\n"))
    assert painted.startswith("\x1b[1;31merror\x1b[0m")
    for code in ("\x1b[1;31m", "\x1b[1;32m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"):
        painted = painted.replace(code, "")
    assert painted == text


def test_sentences_break_between_words_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    command = "  compressor run recipe.yaml --task task.py"
    text = f"a sentence of more than twenty letters\n{command}\n4 |     a: 1, b: 2, c: 3"
    assert fitted(text, io.StringIO()) == text
    assert fitted("exporting took 14.5 %, and", Screen()) == "exporting took\n14.5 %, and"
    lines = fitted(text, Screen()).split("\n")
    assert lines == ["a sentence of more", "than twenty letters", command, "4 |     a: 1, b: 2, c: 3"]


def test_an_error_is_painted_to_its_end_if_it_takes_several_lines(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    complain(CompressorError("there is nothing in there", hint="fill it"))
    assert screen.getvalue() == (
        "\x1b[1;31merror\x1b[0m\x1b[1m: there is\nnothing in there\x1b[0m\n\x1b[1;32mhint\x1b[0m: fill it\n"
    )


OSC = "\x1b]52;c;aGFja2Vk\x07"
"""Fills the clipboard of a terminal that obeys it."""


@pytest.mark.parametrize(
    "write",
    [
        emit,
        tell,
        emit_json,
        say,
        lambda text: complain(CompressorError(text, hint=text, place=Place(text, 1, 1, text))),
        lambda text: emit_rich(columns((text, "b"), [(text, text)])),
        lambda text: emit_rich(rich.text.Text(text)),
        lambda text: Terminal().say(text),
    ],
)
@pytest.mark.parametrize("screen", [io.StringIO, Screen])
def test_no_text_reaches_the_terminal_as_a_command(write, screen, monkeypatch):
    out, err = screen(), screen()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    write(f"name{OSC}\u202e\x9b2J")
    printed = out.getvalue() + err.getvalue()
    assert "name" in printed
    rest = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert printable(rest) == rest


def test_bars_draw_no_control_characters(monkeypatch):
    err = Screen()
    monkeypatch.setattr(sys, "stderr", err)
    with Terminal() as progress, progress.bar(f"training {OSC}", 3) as bar:
        bar.advance(1, f"loss {OSC}")
    assert "]52" in err.getvalue()
    assert OSC not in err.getvalue()
