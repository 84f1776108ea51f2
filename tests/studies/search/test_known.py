"""Frontiers of other searches: shown, refused with a hint, and taken over as far as a space has the same."""

import pytest

from compressor.errors import ReportError, UsageError
from compressor.report import Drop, KnownFrontier, KnownPoint, Score
from compressor.studies.search import known
from tests.studies.search.test_space import space


def frontier(*points, batches=(10, 1000)):
    shown = tuple(
        KnownPoint(
            number=number,
            bytes=100 * (number + 1),
            drop=Drop(value=0.1),
            recipe={"steps": [], "exports": [{"format": "onnx"}]},
            knobs=point,
        )
        for number, point in enumerate(points)
    )
    return KnownFrontier(
        name="Other",
        original=Score(metric="accuracy", value=0.9),
        original_bytes=5000,
        parameters=1000,
        points=shown,
        space=("units",),
        batches=batches,
        trials={"in full": 3},
        seconds=10.0,
        conditions="a machine",
    )


def test_amounts_and_words_are_taken_over_and_the_length_keeps_its_place():
    other = {
        "units": 0.7512,
        "units.score": "sensitivity",
        "precision": "mixed",
        "bits": 3.4,
        "batches": 100,
        "lr": 1.0,
    }
    (point,) = known.starts(space(), frontier(other), 8)
    assert (point["units"], point["units.score"], point["precision"]) == (0.75, "sensitivity", "mixed")
    assert (point["bits"], point["lr"]) == (3.5, 1e-2)
    assert point["batches"] == round((16 * 160) ** 0.5)


def test_what_the_space_has_not_stays_as_it_was():
    other = {"units": 0.5, "units.lstm.1": 0.2, "precision": "int4", "width": 0.5, "distill": "0.9"}
    (point,) = known.starts(space(), frontier(other), 8)
    assert set(point) == {knob.name for knob in space().knobs}
    assert point["precision"] == "float32"
    assert point["units"] == 0.5


def test_a_long_frontier_is_thinned_out_and_every_start_is_a_point_of_the_space():
    many = frontier(*({"units": index / 40} for index in range(38)))
    points = known.starts(space(), many, 8)
    assert len(points) == 8
    for point in points:
        for knob in space().knobs:
            assert knob.distribution()._contains(knob.distribution().to_internal_repr(point[knob.name]))


def test_a_frontier_is_found_by_name_folder_or_file_and_an_unknown_one_refused(tmp_path):
    (tmp_path / known.FILE).write_text(frontier({"units": 0.5}).to_json(), encoding="utf-8")
    assert known.read(str(tmp_path)) == known.read(str(tmp_path / known.FILE)) == frontier({"units": 0.5})
    with pytest.raises(UsageError, match="there is no frontier `nowhere`"):
        known.read("nowhere")
    (tmp_path / known.FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(ReportError, match="not a frontier of a search"):
        known.read(str(tmp_path))


def test_every_frontier_of_the_package_can_be_read_and_its_recipes_are_recipes():
    from compressor.recipe.model import Recipe

    assert known.names()
    for name in known.names():
        found = known.read(name)
        sizes = [point.bytes for point in found.points]
        assert sizes == sorted(sizes)
        for point in found.points:
            Recipe.model_validate({"schema_version": 1, "name": name, **point.recipe.model_dump()})
