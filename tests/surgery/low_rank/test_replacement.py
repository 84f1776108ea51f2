"""What a report says of a matrix that was cut."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from compressor.surgery.changes import Size
from compressor.surgery.low_rank.analysis import Cut
from compressor.surgery.low_rank.replacement import cut_change


@pytest.mark.parametrize("whitened", [True, False])
@pytest.mark.parametrize(
    ("kind", "action", "note"),
    [
        ("linear", "factored", "rank 2 of 4: 12 x 2 and 2 x 20"),
        ("recurrent", "factored", "rank 2 of 4: 12 x 2 and 2 x 20"),
        ("query_key", "heads narrowed", "20 heads of 2 features instead of 12"),
        ("value_output", "heads narrowed", "20 heads of 2 features instead of 12"),
    ],
)
def test_a_change_tells_the_rank_what_is_kept_and_the_numbers_before_and_after(kind, action, note, whitened):
    cut = Cut(SimpleNamespace(name="a", kind=kind, shape=(12, 20)), 240, 32, [1.0, 0.5, 0.25, 0.1, 0.0], 3, None)
    change = cut_change(cut, 2, Size(240, 230), Size(64, 60), whitened=whitened)
    assert (change.name, change.action) == ("a", action)
    what = "output energy on the calibration batches" if whitened else "energy"
    assert change.note == f"{note}, 75.00% of the {what} kept"
    assert (change.parameters_before, change.parameters_after) == (240, 64)
    assert (change.nonzeros_before, change.nonzeros_after) == (230, 60)
