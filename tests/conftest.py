from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items):
    """Skip the tests marked `cuda` where there is no device."""
    marked = [item for item in items if item.get_closest_marker("cuda")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
