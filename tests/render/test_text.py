import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.render.text import one_line, printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("one\ntwo\tthree\r\nfour", "one\ntwo\tthree\nfour"),
        ("over\rwritten", r"over\x0dwritten"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028", r"\u2028"),
        ("\udc80", r"\udc80"),
        ("Größe 日本 → ✓", "Größe 日本 → ✓"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown


def test_one_line_has_no_line_ends_and_single_spaces():
    assert one_line("  a\n\n b\t c ") == "a b c"


@given(st.text())
def test_any_text_becomes_printable_and_encodable_and_stays_so(text):
    shown = one_line(text)
    assert all(character.isprintable() or not character.isascii() for character in shown)
    assert printable(shown) == shown
    shown.encode()


@given(st.text())
def test_json_stays_the_same_value_and_holds_nothing_that_is_obeyed(text):
    shown = printable_json(json.dumps([text], ensure_ascii=False))
    assert json.loads(shown) == [text]
    assert printable(shown) == shown
