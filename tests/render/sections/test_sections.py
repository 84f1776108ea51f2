"""The list of sections: one order for all views."""

import re

import pytest

from compressor.render import html, markdown
from compressor.render.section import shown
from compressor.render.sections import SECTIONS
from tests.render.views import on_terminal

VIEWS = ("terminal", "markdown", "html")


def titles(report, view):
    return [section.title for section, _ in shown(SECTIONS, report, view) if section.title]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_keeps_the_order_of_the_list(report, view):
    sections = sorted(SECTIONS, key=lambda section: view == "terminal" and section.last_on_terminal)
    order = [section.title for section in sections]
    places = [order.index(title) for title in titles(report, view)]
    assert places == sorted(places)


def test_the_summary_and_what_to_try_next_come_last_on_the_terminal(report):
    last = [section for section in SECTIONS if section.last_on_terminal]
    assert [section.title for section in last] == ["What to try next", "Result"]
    assert last == [section for section, _ in shown(SECTIONS, report, "terminal")][-2:]


def test_titles_are_unlike_and_name_places_of_a_page():
    anchors = [section.anchor for section in SECTIONS if section.title]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[a-z][a-z0-9,-]*", anchor) for anchor in anchors)


def test_the_titles_are_what_the_views_show(report):
    assert re.findall(r"^## (.*)$", markdown.page(report), re.MULTILINE) == titles(report, "markdown")
    assert re.findall(r"<h2>(.*?)</h2>", html.page(report)) == titles(report, "html")
    lines = on_terminal(report).splitlines()
    assert [line for line in lines if line in titles(report, "html")] == titles(report, "terminal")


@pytest.mark.parametrize("view", VIEWS)
def test_a_section_without_anything_to_show_is_left_out(report, view):
    bare = report.model_copy(update={"limits": (), "notes": (), "files": (), "steps": ()})
    assert not {"Limits", "Notes", "Files of this run", "Steps"} & set(titles(bare, view))
