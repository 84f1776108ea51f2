from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before anything imports PyTorch: on tensors this small threads only wait for each other, above all those of the other
workers. Processes that tests start inherit it."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With `-n`, a worker gets neighbouring tests, which share fixtures, and takes over the rest of others."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_collection_modifyitems(items):
    """Skip the tests marked `cuda` if there is no device."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
