from __future__ import annotations

import pytest
import torch

from compressor.testing import RandomTask, normal


def features_task(outputs=None, **attributes):
    """Features (B, T, 5) in, one output (B, ...) out unless `outputs` says otherwise."""
    return RandomTask(
        {"features": {0: "batch", 1: "time"}},
        outputs or {"scores": {0: "batch"}},
        normal(5),
        **attributes,
    )


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
