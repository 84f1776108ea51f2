"""How points are drawn: in turn by the sampler, as small changes of the frontier, and at random."""

from dataclasses import replace

from compressor.studies.search.estimates import estimates
from compressor.studies.search.opening import opening
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import trails
from compressor.studies.search.sampling import draw
from tests.studies.search.test_neighbours import SPACE, done


def opened():
    """Records of all points of the opening."""
    records = []
    while True:
        points = trails(records)
        first = opening(SPACE, points, estimates(points, SPACE.goals, Graphs(2000)))
        if first is None:
            return records
        records.append(done(len(records), first[0], 0.0, 20_000 - len(records)))


def test_two_points_in_five_are_proposed_two_are_small_changes_and_one_is_random_whatever_comes_between():
    records = opened()
    origins = []
    for turn in range(5):
        points = trails(records)
        drawn = draw(SPACE, points, estimates(points, SPACE.goals, Graphs(2000)), index=len(records) + 4 * turn)
        origins.append(drawn.origin)
        records.append(done(len(records), drawn.point, 0.01, 20_000, drawn.origin))
    assert origins == ["guided", "changed", "guided", "changed", "random"]


def test_before_anything_was_tried_in_full_the_sampler_draws_what_would_be_a_small_change():
    records = [replace(record, origin="seed" if record.number else "guided") for record in opened()]
    assert draw(SPACE, trails(records), [], index=len(records)).origin == "guided"
