import pytest

from compressor.render.sections.controls import statements, table
from compressor.report import Control
from tests.render.views import VIEWS, with_step
from tests.report.sample import score


@pytest.fixture(scope="module")
def controlled(report):
    return with_step(
        report,
        beside=(
            Control(name="magnitude", parameters=7, nonzeros=5, score=score(0.61), final=score(0.99)),
            Control(name="random", parameters=7, nonzeros=5, score=score(0.35), final=score(0.11)),
            Control(name="other", note="it could not"),
        ),
    )


def test_the_table_has_the_step_and_its_controls(controlled):
    rows = table(controlled, controlled.steps[0]).rows
    assert [row[0] for row in rows] == ["magnitude", "magnitude", "random", "other"]
    assert rows[3][-1] == "it could not"


def test_a_step_without_controls_has_no_table(report):
    assert table(report, report.steps[0]) is None


def test_a_step_that_lost_to_a_control_says_so(controlled):
    (statement,) = statements(controlled)
    assert statement.tone == "bad"
    assert "its controls magnitude 0.9900, random 0.1100: magnitude did better" in statement.text


@pytest.mark.parametrize("show", VIEWS)
def test_every_view_shows_a_control_that_failed(controlled, show):
    assert "it could not" in show(controlled)
