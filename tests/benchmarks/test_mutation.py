"""Faults of a mutation run: what they change, how they get into loaded code, and which tests are tried."""

from __future__ import annotations

import ast
import gzip
import json
import os

import numpy as np
import pytest

from benchmarks.mutate import interval, within
from benchmarks.mutation import reach
from benchmarks.mutation.operators import faults, with_fault
from benchmarks.mutation.reach import ROOT, Candidate, reaching
from benchmarks.mutation.swap import put_in

SOURCE = '''"""A module."""
from __future__ import annotations

LIMIT = 3

def last(values: list[int], *, count: int = 1) -> list[int]:
    """Words 1 < 2."""
    if count < LIMIT and values:
        values.sort(reverse=True)
    return values[-count:]
'''


def test_each_fault_changes_one_place_of_the_text():
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for fault in faults("a.py", SOURCE):
        changed = ast.unparse(with_fault(SOURCE, fault.number)).splitlines()
        assert sum(one != other for one, other in zip(plain, changed, strict=True)) == 1, fault


def test_operators_numbers_conditions_arguments_and_statements_are_changed_and_words_are_not():
    texts = [fault.text for fault in faults("a.py", SOURCE)]
    assert texts == [
        "3 becomes 4",
        "1 becomes 2",
        "`and` becomes `or`",
        "`<` becomes `<=`",
        "`<` becomes `>=`",
        "delete `values.sort(reverse=True)`",
        "`values.sort` without `reverse`",
        "True becomes False",
        "`[-count:]` becomes `[:]`",
        "`-count` without its sign",
    ]


def in_fork(action):
    """Exit status of a process in which an action is done."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if action() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fault_of(path, text):
    return next(fault for fault in faults(path, (ROOT / path).read_text("utf-8")) if text in fault.text)


def test_a_fault_gets_into_a_function_that_is_loaded():
    from compressor.measure.parity import points
    from tests.measure.test_parity import task

    def noticed():
        put_in(fault_of("compressor/measure/parity.py", "`not in` becomes `in`"))
        return points(task()) != before

    before = points(task())
    assert in_fork(noticed) == 0
    assert points(task()) == before


def test_a_fault_gets_into_a_constant():
    from compressor.measure.agreement import Tolerances
    from compressor.report import Noise, OutputNoise

    noise = Noise(precision="float32", outputs=(OutputNoise(largest=1.5, rms=0.1, scale=1000.0),), multiple=8.0)

    def noticed():
        put_in(fault_of("compressor/measure/agreement.py", "0.01 becomes 0.02"))
        return Tolerances(1e-5, 0.0, noise).absolute == 12.0

    assert Tolerances(1e-5, 0.0, noise).absolute == 1e-5
    assert in_fork(noticed) == 0


def test_a_fault_gets_into_a_default():
    from compressor.measure.statistics import bootstrap_mean

    def noticed():
        put_in(fault_of("compressor/measure/statistics.py", "0 becomes 1"))
        return bootstrap_mean(values, resamples=100) == other

    values = np.random.default_rng(0).standard_normal(9)
    other = bootstrap_mean(values, resamples=100, seed=1)
    assert bootstrap_mean(values, resamples=100) != other
    assert in_fork(noticed) == 0


RECORDED = """
import pytest
from compressor.measure import random_inputs, size

@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("sizes") / "a"
    path.write_bytes(b"1234")
    return path, size.file_bytes(path)

@pytest.mark.parametrize("count", range(7))
def test_bytes(written, count):
    assert written[1] == 4

def test_packed(written):
    assert size.gzip_bytes(written[0])

def test_fails():
    assert random_inputs.has_length(None)
"""


def test_each_test_is_recorded_with_the_lines_that_it_and_its_fixtures_run(tmp_path, monkeypatch):
    (tmp_path / "test_recorded.py").write_text(RECORDED)
    monkeypatch.setattr(reach, "STORE", tmp_path / "store")

    def record():
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tmp_path), "-c", os.devnull]
        return pytest.main([*options, str(tmp_path / "test_recorded.py")], plugins=[reach.Recorder(3)]) == 1

    assert in_fork(record) == 0
    found = json.loads(gzip.decompress((tmp_path / "store" / "test_recorded.py.json.gz").read_bytes()))["tests"]
    names = [f"test_recorded.py::test_bytes[{count}]" for count in (0, 3, 6)]
    assert list(found) == [*names, "test_recorded.py::test_packed"]
    lines = {name: test["lines"]["compressor/measure/size.py"] for name, test in found.items()}
    assert lines[names[0]] == lines[names[1]] == lines[names[2]]
    (function,) = (
        node for node in ast.parse((ROOT / "compressor/measure/size.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "file_bytes"
    )  # fmt: skip
    own = [number for first, last in lines[names[1]] for number in range(first, last + 1)]
    assert own
    assert all(function.lineno < number <= function.end_lineno for number in own)
    assert len(lines["test_recorded.py::test_packed"]) > len(lines[names[0]])


def test_lines_that_moved_since_they_were_recorded_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "ROOT", tmp_path)
    record = {"sources": {"a.py": "x = 1\ny = 2\n"}, "tests": {"t": {"seconds": 1.0, "lines": {"a.py": [[2, 2]]}}}}
    monkeypatch.setattr(reach, "_records", lambda: [record])
    (tmp_path / "a.py").write_text("x = 1\nz = 0\ny = 2\n")
    assert reaching("a.py", 3, 3) == [Candidate("t", 1.0)]
    assert reaching("a.py", 1, 2) == []


def test_the_quickest_tests_within_the_budget_are_tried_and_one_at_least():
    tests = [Candidate("a", 1.0), Candidate("b", 2.0), Candidate("c", 9.0)]
    assert within(tests, 4.0) == tests[:2]
    assert within(tests[2:], 4.0) == tests[2:]


def test_the_interval_of_a_share_is_wilsons():
    assert interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
