"""The area that files dominate, and what one more is expected to add to it."""

import pytest

from compressor.studies.search.hypervolume import expected_gain, hypervolume


def test_it_is_the_area_up_to_the_reference():
    assert hypervolume([(1.0, 1.0)], (3.0, 2.0)) == 2.0
    assert hypervolume([(1.0, 1.0), (0.0, 1.5), (2.5, 1.9), (5.0, 0.0)], (3.0, 2.0)) == 2.5
    assert hypervolume([], (1.0, 1.0)) == 0.0


def test_a_gain_without_doubt_is_the_area_that_is_added():
    assert expected_gain([(1.0, 1.0)], 0.0, 0.0, 1.5, (3.0, 2.0)) == pytest.approx(0.5)
    assert expected_gain([(1.0, 1.0)], 1.5, 0.0, 1.5, (3.0, 2.0)) == 0.0


def test_doubt_gives_a_dominated_point_a_chance():
    assert expected_gain([(1.0, 1.0)], 1.5, 1.0, 1.5, (3.0, 2.0)) > 0.0
