import pytest

from compressor.render import changes
from tests.render.views import changed


def test_without_a_recorded_drop_the_scores_are_subtracted(report):
    assert changes.drop(report.original, changed(report, drop=None).compressed[0]).value == pytest.approx(0.0054)
