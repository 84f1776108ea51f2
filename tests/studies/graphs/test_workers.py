"""The same rows for the same seed, whoever trains them."""

from __future__ import annotations

import textwrap

import pytest

from compressor.errors import TaskError, UsageError
from compressor.studies.graphs.study import study
from tests.cli.conftest import TASK
from tests.studies.graphs.conftest import options, timeless


def test_the_same_seed_gives_the_same_rows_in_any_number_of_processes(done, task, tmp_path):
    results = study(options(task), tmp_path / "again.json", jobs=2)
    assert timeless(results.rows) == timeless(done[1].rows)


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_rows_and_what_a_worker_raises_arrives(task, done, tmp_path):
    results = study(options(task), tmp_path / "ray.json", jobs=2, ray="local")
    assert timeless(results.rows) == timeless(done[1].rows)
    file = tmp_path / "broken.py"
    file.write_text(textwrap.dedent(TASK).replace("def loss(self, outputs, target):", "def loss(self):"))
    with pytest.raises(TaskError, match="`loss` of"):
        study(options(str(file)), tmp_path / "broken.json", jobs=1, ray="local")


def test_a_cluster_that_is_not_there_is_an_error_that_says_how_to_start_one(task, tmp_path):
    with pytest.raises(UsageError, match="no Ray cluster at `auto`") as caught:
        study(options(task), tmp_path / "none.json", ray="auto")
    assert "ray start --head" in caught.value.hint
