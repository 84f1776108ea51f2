"""Processes that are really killed, at random moments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_twenty_kills_at_random_moments_end_with_the_bytes_of_an_undisturbed_run():
    script = [sys.executable, "benchmarks/kill.py", "--count", "20", "--quick"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("20 kills in ")
