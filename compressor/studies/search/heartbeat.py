"""Signs of life of a worker, from a thread beside its work."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def beating(beat: Callable[[], object], seconds: float) -> Iterator[None]:
    """Within the block `beat` is called every so many seconds; that it fails now and then is no matter."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(seconds):
            with contextlib.suppress(Exception):  # the work's own calls say what is wrong with the storage
                beat()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
