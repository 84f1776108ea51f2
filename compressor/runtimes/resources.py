"""What this machine has: memory and threads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

GIB: Final = 1 << 30
MOST_THREADS: Final = 256
"""More of them in one operator only wait for each other, and some thousands end the process."""
_CONTAINER_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory() -> int:
    """Bytes of memory that this process and its children may use: the machine's, or less in a container."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no container, or `max`
            limits.append(int(path.read_text()))
    return min(limits)


def gib(size: float) -> str:
    """Bytes as `1.5 GiB`."""
    return f"{size / GIB:.3g} GiB"
