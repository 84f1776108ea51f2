"""A slice of the tasks of `benchmarks/fuzz_inputs.py`: each is accepted, or refused with its own cause."""

from __future__ import annotations

import pytest

from tests.fuzzing.tasks.faults import FAULTS, Fault
from tests.fuzzing.tasks.verdict import Case, case, judge

QUICK = [number for number in range(40) if case(1, number).fault != "compiled"][:32]
"""PyTorch's compiler takes seconds to import."""


@pytest.mark.parametrize("number", QUICK)
def test_the_verdict_on_a_random_task_is_the_known_one(number):
    tried = case(1, number)
    assert judge(tried) == "", tried


def test_the_judge_notices_a_fault_that_is_accepted_and_one_of_another_cause(monkeypatch):
    good = next(case(0, index) for index in range(200) if case(0, index).fault not in FAULTS)
    monkeypatch.setitem(FAULTS, "none", Fault({}, "anything"))
    assert judge(Case("none", good.choice)) == "accepted"
    monkeypatch.setitem(FAULTS, "other", Fault(FAULTS["frozen"].changes, "another cause"))
    assert judge(Case("other", good.choice)).startswith("another cause: error: `loss` has no gradient")
