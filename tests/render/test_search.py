"""The report of a search: which numbers are measured, and by which function of the task."""

import re

from compressor.render import html, markdown
from compressor.render.svg import TEXT, WIDTH
from compressor.report import Drop, Interval, SearchReport
from tests.fuzzing.searches import report


def changed(**facts):
    return SearchReport.from_json(report()).model_copy(update=facts)


def with_point(number, **facts):
    known = changed()
    points = [one.model_copy(update=facts) if one.number == number else one for one in known.points]
    return changed(points=tuple(points))


def row(page, number):
    return next(line for line in page.split("## Frontier")[1].splitlines() if line.startswith(f"| {number} |"))


def test_the_loss_of_a_frontier_is_that_by_evaluate_and_that_by_validate_stands_beside():
    line = row(markdown.page(with_point(5, unseen=Drop(value=0.0125))), 5)
    assert "| 0.0125 |" in line
    assert "| 0.0050 |" in line
    assert "Loss of accuracy by evaluate against bytes" in html.page(with_point(5, unseen=Drop(value=0.0125)))


def test_a_latency_that_was_not_measured_is_said_to_be_predicted():
    assert "| 3.00 ms predicted |" in row(markdown.page(with_point(5, expected_latency_ms=3.0)), 5)
    assert "| 4.00 ms |" in row(markdown.page(with_point(5, latency_ms=4.0, expected_latency_ms=3.0)), 5)


def test_the_answer_names_the_latency_of_both_files_if_it_counts():
    timed = with_point(5, latency_ms=4.0).model_copy(update={"original_latency_ms": 9.0})
    assert "A call took 4.00 ms instead of 9.00 ms." in markdown.page(timed)
    assert "A call took" not in markdown.page(changed(original_latency_ms=9.0))


def test_a_zero_has_no_minus():
    drop = Drop(value=1e-9, interval=Interval(low=-1e-9, high=1e-9))
    page = markdown.page(with_point(5, unseen=drop).model_copy(update={"best_drop": drop}))
    assert "Change of accuracy: +0.0000 (95 % interval +0.0000 to +0.0000)" in page
    assert "-0.0000" not in page


def test_no_size_is_written_beyond_the_edge_of_a_picture():
    page = html.page(changed(original_bytes=281_000))
    places = [float(place) for place in re.findall(r'<text x="([\d.]+)"[^>]*>300 KB', page)]
    assert len(places) == 1
    assert places[0] + 3 * TEXT < WIDTH  # a letter is less wide than high


def test_a_plain_statement_in_markdown_has_one_bullet():
    assert "\n- The search looked at" in markdown.page(changed())


def test_a_picture_leaves_out_what_was_not_measured_by_evaluate_though_no_loss_is_too_large():
    measured = with_point(5, unseen=Drop(value=0.0125)).model_copy(update={"goals": {"max_bytes": 60_000}})
    page = html.page(measured)
    assert "Dots: 1 recipes tried in full" in page
    assert "2 with a much larger loss, or none by" in page


def test_a_picture_without_any_loss_by_evaluate_shows_that_by_validate():
    assert "Loss of accuracy by validate against bytes" in html.page(changed())
