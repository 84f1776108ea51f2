"""Memory that nobody holds any more, given back to the system."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any


def give_back() -> None:
    """Give the system what was freed but is kept for later, as far as the C library can; glibc on Linux.

    glibc keeps freed blocks of up to 32 MB: a session of ONNX Runtime that folds constants leaves several times the
    model behind, in which the next one does not always fit.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """`malloc_trim` of glibc; None in another C library."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
