"""Every promise of SECURITY.md and of the page about promises names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rows(page):
    """Rows of its tables without their heads: a promise each."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    heads = {number - 1 for number, line in enumerate(lines) if re.fullmatch(r"[|\s:-]+", line)}
    return [line for number, line in enumerate(lines) if line.startswith("| ") and number not in heads]


ROWS = [*rows("SECURITY.md"), *rows("docs/concepts/promises.md")]


@cache
def functions(path):
    return {
        node.name for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))) if isinstance(node, ast.FunctionDef)
    }


def test_there_are_promises():
    assert len(rows("SECURITY.md")) > 3
    assert len(rows("docs/concepts/promises.md")) > 30


@pytest.mark.parametrize("row", ROWS)
def test_a_promise_names_its_tests(row):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
    assert named
    assert row.count("`tests/") == len(named)
    for file, name in named:
        assert name in functions(file), f"{file}::{name}"
