"""Errors as text: everything that matters, and no more than a screen holds."""

import pytest

from compressor.errors import CompressorError, Place, RecipeError, RecipeErrors, shortened


def test_of_thousands_of_errors_the_first_twenty_are_shown():
    text = RecipeErrors([RecipeError(f"mistake {number}") for number in range(3000)]).render()
    assert text.endswith("error: mistake 19\n\n... and 2980 more")
    assert text.count("error: ") == 20


def test_the_middle_of_a_long_line_and_lines_after_very_many_are_left_out():
    text = shortened("begin" + "x" * 10**6 + "end\nshort\n" + "line\n" * 1000)
    first, second, *rest = text.split("\n")
    assert first.startswith("beginxxx")
    assert first.endswith("xxxend")
    assert (len(first), second) == (1000, "short")
    assert len(rest) == 39
    assert rest[-1] == "... and 963 more lines"


def test_all_parts_of_an_error_are_cut():
    long = "y" * 10**6
    error = CompressorError(long, hint=long, place=Place(long, 3, 5, long))
    assert max(map(len, error.render().split("\n"))) < 1050


@pytest.mark.parametrize("column", [1, 7, 60, 61, 500, 940, 1000])
def test_the_caret_stays_under_its_column_of_a_long_source_line(column):
    source = "".join(chr(0x4E00 + index) for index in range(1000))
    _, shown, caret = Place("recipe.yaml", 3, column, source).render().split("\n")
    assert shown[caret.index("^")] == source[column - 1]
