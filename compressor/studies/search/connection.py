"""The connection to Optuna's storage: opened with its driver, asked again while it does not answer, and closed."""

from __future__ import annotations

import sqlite3
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from compressor.errors import CompressorError, UsageError
from compressor.studies.search.study_facts import damaged_study

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import RDBStorage

HEARTBEAT: Final = 10
"""Seconds between two signs of life of a worker."""
GRACE: Final = 60
"""Seconds without one after which its trial is given to another."""
PATIENCE: Final = 30.0
"""Seconds for which a storage that does not answer is asked again."""
_UNREADABLE: Final = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RecursionError,
)
"""What Optuna raises on values that it has not written."""
Answer = TypeVar("Answer")


class StorageGoneError(CompressorError):
    """A storage that does not answer any more."""


class Connection:
    """A storage that is asked."""

    def __init__(self, url: str, *, shared: bool) -> None:
        """Open it.

        Args:
            url: As SQLAlchemy takes it, `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`.
            shared: Whether other workers may use it at the same time.

        Raises:
            UsageError: There is no such storage, or its driver is missing.
        """
        self.url = _with_driver(url)
        self.storage = _opened(self.url, shared=shared)

    def close(self) -> None:
        """Close it for good."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def asked(self, question: Callable[[], Answer]) -> Answer:
        """What the storage answers; asked again for a while if it does not.

        Raises:
            StorageGoneError: It did not answer within `PATIENCE` seconds, or its file is gone.
            UsageError: What it holds is damaged, so that asking again is of no use.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        deadline, pause = time.monotonic() + PATIENCE, 0.2
        while True:
            try:
                self._refuse_missing_file()
                return question()
            except (SQLAlchemyError, StorageInternalError) as error:
                if _is_damaged(error):
                    raise damaged_study(f"the storage {shown(self.url)} ({_reason(error)})") from error
                if time.monotonic() + pause > deadline:
                    raise StorageGoneError(
                        f"the storage {shown(self.url)} does not answer: {_reason(error)}",
                        hint="what was finished is in it; when it is there again, the same command goes on",
                    ) from error
                self.storage.remove_session()
                time.sleep(pause)
                pause *= 2
            except _UNREADABLE as error:
                raise damaged_study(f"the storage {shown(self.url)} ({type(error).__name__}: {error})") from error

    def _refuse_missing_file(self) -> None:
        """A file that was removed under an open connection takes what is written and keeps nothing."""
        prefix = "sqlite:///"
        if self.url.startswith(prefix) and not Path(self.url.removeprefix(prefix)).is_file():
            raise StorageGoneError(
                f"the study {self.url.removeprefix(prefix)} is gone: its file was moved or removed",
                hint="put it back and give the same command again; without it the search begins anew",
            )


def _is_damaged(error: BaseException | None) -> bool:
    """Whether a file of SQLite is none, or lacks tables of a study."""
    while error is not None:
        own = getattr(error, "orig", None) or error
        if isinstance(own, sqlite3.DatabaseError):
            return not isinstance(own, sqlite3.OperationalError) or "no such" in str(own)  # table or column
        error = error.__cause__
    return False


def _opened(url: str, *, shared: bool) -> RDBStorage:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT if shared else None,
                grace_period=GRACE if shared else None,
            )
    except ImportError as error:
        raise UsageError(
            f"the storage {shown(url)} needs a driver that is not installed: {error}",
            hint="pip install 'edge-compressor[postgresql]'",
        ) from error
    except Exception as error:  # drivers and SQLAlchemy have no common base
        raise UsageError(
            f"there is no storage at {shown(url)}: {_reason(error)}",
            hint="such as postgresql://USER:PASSWORD@HOST/DATABASE, for a server that runs and a database that exists",
        ) from error


def _with_driver(url: str) -> str:
    """Psycopg 3, the driver of the extra, if the address names none."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)


def shown(url: str) -> str:
    """An address without its password."""
    before, separator, after = url.rpartition("@")
    if not separator:
        return url
    scheme, _, login = before.partition("://")
    return f"{scheme}://{login.partition(':')[0]}@{after}"


def _reason(error: BaseException) -> str:
    text = str(error.__cause__ or error).strip().splitlines()
    return text[0] if text else type(error).__name__
