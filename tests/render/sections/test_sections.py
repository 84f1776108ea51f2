"""The list of sections: one order for all views."""

import re

import pytest

from compressor.render import html, markdown
from compressor.render.sections import SECTIONS, shown
from tests.render.views import on_terminal

VIEWS = ("terminal", "markdown", "html")


def titles(report, view):
    return [section.title for section, _ in shown(report, view) if section.title]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_keeps_the_order_of_the_list(report, view):
    order = [section.title for section in SECTIONS]
    places = [order.index(title) for title in titles(report, view)]
    assert places == sorted(places)


def test_only_the_summary_comes_last_on_the_terminal(report):
    assert [section for section in SECTIONS if section.last_on_terminal] == [shown(report, "terminal")[-1][0]]


def test_titles_are_unlike_and_name_places_of_a_page():
    anchors = [section.anchor for section in SECTIONS if section.title]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[a-z][a-z0-9,-]*", anchor) for anchor in anchors)


def test_the_titles_are_what_the_views_show(report):
    assert re.findall(r"^## (.*)$", markdown.page(report), re.MULTILINE) == titles(report, "markdown")
    assert re.findall(r"<h2>(.*?)</h2>", html.page(report)) == titles(report, "html")
    assert [title for title in titles(report, "html") if title in on_terminal(report).splitlines()] == titles(
        report, "terminal"
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_section_without_anything_to_show_is_left_out(report, view):
    bare = report.model_copy(update={"limits": (), "notes": (), "files": (), "steps": ()})
    assert not {"Limits", "Notes", "Files of this run", "Steps"} & set(titles(bare, view))
