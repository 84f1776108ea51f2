"""Flash and RAM of a board as goals of a search."""

import math
import textwrap

import pytest

from compressor.report import Drop
from compressor.studies.search.estimates import estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.on_board import OnBoard
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.place import Place
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import Record, trails
from compressor.studies.search.search import search
from compressor.studies.search.study_facts import OriginalFile
from compressor.studies.search.verdicts import verdict
from compressor.studies.search.worker import View
from tests.boards import needs_board
from tests.studies.search.tiny import TASK

EXPORTS = [{"format": "c", "precision": "int8", "target": "cortex-m4", "quantized_error": 0.5}]
ORIGINAL = OriginalFile(
    bytes=4000, weight_bytes=3000, latency_ms=None, seconds=1.0, flash_bytes=6000, ram_bytes=800, parameters=400
)
GOALS = Goals.model_validate({"max_drop": 0.03, "max_flash": 4000, "max_ram": 500, "exports": EXPORTS})


def record(number, rung, **known):
    return Record(number, number, rung, {"units": number / 100}, "done", Outcome(drop=Drop(value=0.0), **known), "int8")


def test_what_was_not_run_is_expected_from_the_original_and_then_from_what_was_run():
    low = record(0, 0, weight_bytes=1000, parameters=100)
    (alone,) = estimates(trails([low]), GOALS, Graphs(1000, board=OnBoard.of(ORIGINAL)))
    assert (alone.flash, alone.ram) == (2000 + 2000, 400.0)
    assert alone.meets(GOALS)
    full = record(1, 2, bytes=1500, weight_bytes=900, parameters=81, flash_bytes=4500, ram_bytes=540)
    graphs = Graphs(1000, board=OnBoard.of(ORIGINAL)).with_files([low, full])
    first, second = estimates(trails([low, full]), GOALS, graphs)
    assert (second.flash, second.ram) == (4500.0, 540.0)
    assert first.flash == first.bytes + 3000
    assert first.ram == pytest.approx(600.0)
    assert second.violations(GOALS)["flash"] == pytest.approx(0.125)
    assert not second.meets(GOALS)


def test_a_verdict_says_what_a_program_takes():
    known = {"bytes": 1500, "weight_bytes": 900, "parameters": 81, "flash_bytes": 4500, "ram_bytes": 540}
    points = trails([record(1, 2, **known)])
    graphs = Graphs(1000, board=OnBoard.of(ORIGINAL))
    said = verdict(View([], points, estimates(points, GOALS, graphs), graphs), points[0], GOALS, chosen=None)
    assert "4.50 KB of flash and takes 540 B of RAM" in said


def test_a_file_for_no_board_has_neither():
    assert OnBoard.of(ORIGINAL.model_copy(update={"flash_bytes": None})) is None
    (found,) = estimates(trails([record(0, 0, weight_bytes=10)]), Goals(max_drop=0.1), Graphs(100))
    assert (found.flash, found.ram) == (0.0, 0.0)


@needs_board
@pytest.mark.slow
def test_a_search_ends_with_a_program_that_fits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "task.py").write_text(textwrap.dedent(TASK), encoding="utf-8")
    goals = GOALS.model_copy(update={"max_drop": 0.3, "max_flash": 7000, "max_ram": 600, "trials": 6})
    report = search(goals, Place(str(tmp_path / "task.py"), tmp_path / "out"))
    assert report.chosen is not None
    tried = [point for point in report.points if point.rung == 2 and point.flash_bytes]
    assert all(0 < point.ram_bytes < math.inf for point in tried)
    best = next(point for point in tried if point.number == report.chosen)
    assert best.flash_bytes <= 7000
    assert best.ram_bytes <= 600
    assert {"flash_bytes", "ram_bytes"} <= {limit.name for limit in _limits(tmp_path / "out" / "best")}


def _limits(folder):
    from compressor.report import Report

    return Report.model_validate_json((folder / "report.json").read_text(encoding="utf-8")).limits
