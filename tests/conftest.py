from __future__ import annotations

import gc
import os
from functools import cache

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before anything imports PyTorch: on tensors this small threads only wait for each other, above all those of the other
workers. Processes that tests start inherit it."""
gc.set_threshold(50_000, *gc.get_threshold()[1:])
"""As the command line does: to look through all of PyTorch's objects every 700 takes a tenth of the time of tests."""
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # on a busy machine drawing examples takes seconds, and no test is about that


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With `-n`, a worker gets neighbouring tests, which share fixtures, and takes over the rest of others."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_collection_modifyitems(items):
    """`pytest -m accelerator` on a machine that has one runs the tests that use it.

    Where there is none, the pretend one is made before any test: PyTorch counts its devices once a process.
    """
    marked = [item for item in items if {"accelerator", "without_float64"} & set(getattr(item, "fixturenames", ()))]
    for item in marked:
        if "accelerator" in item.fixturenames:
            item.add_marker("accelerator")
    if marked and _real_accelerator() is None:
        import tests.pretend_accelerator  # noqa: F401


@cache
def _real_accelerator():
    """The machine's; asked for before a pretend one is made, as PyTorch knows one of them at a time."""
    import torch

    return torch.accelerator.current_accelerator(check_available=True)


@pytest.fixture
def accelerator():
    """The device of the machine's accelerator; where there is none, a pretend one, whose numbers are the CPU's."""
    if (real := _real_accelerator()) is not None:
        yield real
        return
    from tests.pretend_accelerator import available

    with available() as device:
        yield device


@pytest.fixture
def without_float64():
    """A device that computes everything but float64, as Apple's mps does."""
    if _real_accelerator() is not None:
        pytest.skip("the pretend device would take the place of the real one")
    from tests.pretend_accelerator import available

    with available(float64=False) as device:
        yield device
