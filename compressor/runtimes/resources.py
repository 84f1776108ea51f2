"""What this machine has: memory and threads."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path
from typing import Final

from compressor.errors import UsageError

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


def limit(process: int, most: int | None = None) -> int | None:
    """Limit the memory that a process may take, to `most` bytes or what there is; None if this system cannot.

    Memory is what the process may write to: address space that is only reserved does not count.
    """
    if not hasattr(resource, "prlimit"):
        return None
    _, own = resource.getrlimit(resource.RLIMIT_DATA)
    given = most or memory()
    given = given if own == resource.RLIM_INFINITY else min(given, own)
    with contextlib.suppress(ProcessLookupError):  # it has ended
        resource.prlimit(process, resource.RLIMIT_DATA, (given, given))
    return given


def gib(size: float) -> str:
    """Bytes as `1.5 GiB`."""
    return f"{size / GIB:.3g} GiB"


def refuse_larger(size: float, what: str, hint: str) -> None:
    """Raise `UsageError` if `what` takes more bytes than there are, before anything of that size is made."""
    there = memory()
    if size > there:
        raise UsageError(f"{what} takes {gib(size)} of memory, and there are {gib(there)}", hint=hint)


def check_threads(threads: int) -> None:
    """Raise `UsageError` if a runtime should not be started on so many threads."""
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {threads}", hint=f"give 1 to {MOST_THREADS}")
