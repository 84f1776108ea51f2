"""Memory that nobody holds any more."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from compressor.runtimes.freed_memory import give_back


def resident():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be asked to")
def test_what_was_freed_below_something_that_is_still_held_goes_back_to_the_system():
    size, count = 101_000, 599  # below the size from which glibc maps a block of its own
    blocks = [np.ones(size, np.uint8) for _ in range(count)]
    before, kept = resident(), blocks[-1]
    blocks.clear()
    give_back()
    assert before - resident() > 0.8 * size * count
    assert kept.all()
