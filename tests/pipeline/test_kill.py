"""Processes that are really killed, at random moments of parts drawn evenly."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.studies.search.tiny import TASK

ROOT = Path(__file__).resolve().parents[2]


def killed(*options):
    script = [sys.executable, "benchmarks/kill.py", *options]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_kills_at_random_moments_end_with_the_bytes_of_an_undisturbed_run():
    assert killed("--count", "20", "--kills", "4", "--option=--quick").endswith("ended with the same bytes")


@pytest.mark.slow
def test_kills_of_a_search_end_with_the_study_and_the_file_of_an_undisturbed_one(tmp_path):
    (tmp_path / "task.py").write_text(textwrap.dedent(TASK))
    goals = ("--option=--trials=6", "--option=--max-drop=0.05")
    said = killed("--search", "--count", "6", "--kills", "6", "--task", str(tmp_path / "task.py"), *goals)
    assert said.endswith("ended with the same bytes")
