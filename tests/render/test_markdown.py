import re

import pytest

from compressor.render import markdown
from compressor.render.blocks import Details, Group, Text


def test_markdown_escapes_text_outside_of_code(nasty):
    text, _, code = markdown.page(nasty).partition("```")
    assert "<script" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)[\[\]`]", text)
    assert "script" in code


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_header(nasty):
    blocks = [block.splitlines() for block in markdown.page(nasty).split("\n\n") if block.startswith("|")]
    assert len(blocks) > 8
    for rows in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_recipe_text_cannot_end_its_code_block(report):
    text = markdown.page(report.model_copy(update={"recipe": {"note": "````\n# out"}}))
    assert "`````yaml" in text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("- no item", r"\- no item"),
        ("1. no number", r"1\. no number"),
        ("1.5 is", "1.5 is"),
        ("-0.5", "-0.5"),
        ("&lt;b> & more", r"\&lt;b\> & more"),
        ("a\n# b", r"a \# b"),
    ],
)
def test_what_would_begin_a_list_a_heading_or_an_entity_is_text(text, written):
    assert list(markdown.draw([Text(text)], level=3)) == [written]


def test_titles_go_one_level_down_inside_of_each_other():
    inner = Details("inner", (Text("deep"),))
    assert list(markdown.draw([Group("outer", (inner,))], level=3)) == ["### outer", "#### inner", "deep"]
