"""What cannot be studied is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from compressor.studies.graphs.facts import Study


@pytest.mark.parametrize(
    "change",
    [{"smallest": 9}, {"largest": 9}, {"kinds": ()}, {"kinds": ("ws", "ws")}, {"kinds": ("er",)}, {"count": 0}],
)
def test_a_study_that_cannot_be_meant_is_refused(change):
    with pytest.raises(ValidationError):
        Study(**({"task": "task.py"} | change))
