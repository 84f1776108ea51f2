"""The C compiler that the project finds on this machine, and the mark of tests that need one."""

from __future__ import annotations

import pytest

from compressor.errors import ExportError
from compressor.runtimes import c_compiler


def _found() -> str | None:
    try:
        return c_compiler.find()
    except ExportError:
        return None


CC = _found()
needs_compiler = pytest.mark.skipif(CC is None, reason="there is no C compiler")
