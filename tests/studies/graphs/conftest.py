"""A small study that several tests read."""

from __future__ import annotations

import textwrap

import pytest

from compressor.studies.graphs.facts import Study
from compressor.studies.graphs.study import study
from tests.cli.conftest import TASK


@pytest.fixture(scope="package")
def task(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "task.py"
    file.write_text(textwrap.dedent(TASK))
    return str(file)


def options(task, **changes):
    return Study(**({"task": task, "count": 2, "largest": 13, "epochs": 1} | changes))


@pytest.fixture(scope="package")
def done(task, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "results.json"
    return path, study(options(task), path)


def timeless(rows):
    return [row.model_copy(update={"seconds": 0.0}) for row in rows]
