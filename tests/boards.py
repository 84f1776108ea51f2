"""Tests on emulated microcontrollers, skipped with the reason if the tools are not here."""

from __future__ import annotations

import pytest

from compressor.errors import ExportError
from compressor.runtimes.microcontroller.boards import tools


def missing() -> str:
    """What is not installed; empty if all is there."""
    try:
        tools()
    except ExportError as error:
        return f"{error.message}; {error.hint}"
    return ""


REASON = missing()


def needs_board(test):
    """Mark a test that runs code on an emulated board."""
    return pytest.mark.board(pytest.mark.skipif(bool(REASON), reason=REASON)(test))
