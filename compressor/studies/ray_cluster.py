"""A Ray cluster for as long as it is needed."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compressor.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCAL = "local"
"""The address of a cluster that is started on this machine and ends with its use."""


@contextmanager
def cluster(address: str, jobs: int) -> Iterator[Any]:
    """The module `ray`, connected to a cluster.

    Args:
        address: `HOST:PORT` of a cluster that runs, or `LOCAL`.
        jobs: Processors of a cluster on this machine.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "--ray needs Ray, which is not installed", hint="pip install 'edge-compressor[ray]'"
        ) from error
    local: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"there is no Ray cluster at `{address}`: {str(error).splitlines()[0]}",
            hint="start one with `ray start --head` and give its HOST:PORT, or use --ray local",
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()
