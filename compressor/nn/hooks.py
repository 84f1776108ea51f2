"""Hooks of modules for a while."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """What registering hooks gave; at the end of the block the hooks are removed."""
    with ExitStack() as stack:
        for handle in handles:
            stack.enter_context(handle)
        yield
