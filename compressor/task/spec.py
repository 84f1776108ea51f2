"""How a task is named on the command line; apart from loading it, which needs PyTorch."""

from __future__ import annotations


def split_spec(spec: str) -> tuple[str, str]:
    """`FILE.py` and `NAME` of `FILE.py:NAME`; the name is empty if there is none."""
    file, _, name = spec.rpartition(":")
    return (file, name) if file.endswith(".py") else (spec, "")
