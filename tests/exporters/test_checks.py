"""A file is checked in each further runtime, and a disagreement says what is known of the runtime."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from compressor.errors import ParityError
from compressor.report import Parity, ParityPoint
from exporters import checks, in_browser
from exporters.passes import fixed_shapes


def compared(*, within):
    point = ParityPoint(batch=2, length=7, max_absolute=0.5, max_relative=0.5, within=within, scale=1.0, needed=0.5)
    return Parity(atol=1e-5, rtol=1e-4, points=(point,))


@pytest.fixture
def check(monkeypatch):
    """Check in runtimes that agree or do not; also gives what was asked."""
    asked = []

    def run(runtimes, *, within=True, relu=False):
        def agreement(reference, candidate, job, *, runtime):
            asked.append(runtime)
            return compared(within=within), f"{runtime} 1.0"

        monkeypatch.setattr(checks, "agreement", agreement)
        monkeypatch.setattr(fixed_shapes, "has_relu", lambda candidate: relu)
        monkeypatch.setattr(in_browser, "latencies", lambda candidate, job, runtime: ())
        found = checks.in_other_runtimes(None, None, SimpleNamespace(), runtimes)
        return found, asked

    return run


def test_each_runtime_is_asked_once_in_its_order(check):
    found, asked = check(["tract", "openvino", "tract"])
    assert asked == ["tract", "openvino"]
    assert [item.runtime for item in found] == ["tract 1.0", "openvino 1.0"]
    assert all(item.parity.passed and item.latencies == () for item in found)


@pytest.mark.parametrize("runtime", ["tract", *in_browser.THREADS])
def test_browsers_alone_are_timed_here(check, monkeypatch, runtime):
    timed = []
    check([runtime])
    monkeypatch.setattr(checks, "agreement", lambda *_, runtime: (compared(within=True), runtime))
    monkeypatch.setattr(in_browser, "latencies", lambda candidate, job, runtime: timed.append(runtime) or ())
    checks.in_other_runtimes(None, None, SimpleNamespace(), [runtime])
    assert timed == ([runtime] if runtime in in_browser.THREADS else [])


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("runtime", ["tract", "openvino"])
def test_a_disagreement_names_the_runtime_what_is_known_of_it_and_how_to_leave_it_out(check, runtime, relu):
    with pytest.raises(ParityError) as caught:
        check([runtime], within=False, relu=relu)
    assert f"right in ONNX Runtime and disagrees with PyTorch in {runtime} 1.0" in caught.value.message
    assert f"leave `{runtime}` out of `check_in`" in caught.value.hint
    assert ("an RNN of relu as one of tanh" in caught.value.hint) == relu
    assert ("cache of compiled subgraphs" in caught.value.hint) == (runtime == "openvino")
