import re

import pytest

from compressor.render import html, markdown, terminal
from compressor.render.blocks import Statement, Statements, Table, Text
from tests.render.views import on_terminal, printed


def test_brackets_are_printed_as_they_are(nasty):
    assert "[red]b[/red]" in on_terminal(nasty, width=400)


def test_no_text_of_a_report_reaches_the_terminal_as_a_command(nasty):
    shown = on_terminal(nasty, width=4000)
    assert "\\x1b]52;c;aGVsbG8=\\x07\\x9b31m\\u202e" in shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)


def test_no_text_of_a_report_begins_a_line_of_its_own(nasty):
    assert not re.search("^✓ Limits met", on_terminal(nasty, width=4000), re.MULTILINE)


@pytest.mark.parametrize("page", [markdown.page, html.page])
def test_documents_show_control_characters_too(nasty, page):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", page(nasty))


def test_the_summary_is_what_stays_on_the_screen(report):
    lines = on_terminal(report).splitlines()
    assert lines[0].startswith("gru-half ✗ 1 of 3 limits missed")
    (last,) = [index for index, line in enumerate(lines) if line.startswith("✗ Limits missed: speedup reached 2.69x")]
    assert len(lines) - last <= 3
    assert "What to try next" in lines


def test_numbers_are_aligned_to_the_right_and_words_to_the_left():
    table = Table(("name", "count", "why"), (("a", "1", "short"), ("b", "1,234", "longer")))
    assert printed(terminal.draw([table])).splitlines()[2:] == ["a          1   short ", "b      1,234   longer"]


def test_blocks_stand_one_below_the_other():
    blocks = [Text("first"), Statements((Statement("good", "done"), Statement("bad", "not done")))]
    assert printed(terminal.draw(blocks)).splitlines() == ["first", "✓ done", "✗ not done"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_is_wrapped_to_the_width_and_loses_nothing(width):
    header = ("quantity", "original", "compressed", "change")
    rows = (("a name of twenty-eight chars", "0.9644 to 0.9924", "0.9590 to 0.9870", "drop: -0.0054 to 0.0162"),)
    shown = printed(terminal.draw([Table(header, rows)]), width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert sum(map(str.isalnum, shown)) == sum(map(str.isalnum, "".join((*header, *rows[0]))))
    assert rows[0][0] in shown
