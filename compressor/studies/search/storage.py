"""The study in Optuna's storage: trials are begun, finished and read here, by any number of workers.

A trial of the storage is one point at one rung. Two workers may begin the same at the same moment; both then look, and
the one with the higher number gives way, so that nothing is done twice.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from compressor.errors import UsageError
from compressor.files import read_text, write_whole
from compressor.studies.search.connection import GRACE, HEARTBEAT, Connection, StorageGoneError
from compressor.studies.search.heartbeat import beating
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.records import Record, models_of, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from compressor.studies.search.knobs import Point
    from compressor.studies.search.space import Rung, Space

_ALIVE: Final = "alive"
"""Attribute of a trial whose worker has given its first sign of life."""
PENDING: Final = "unsaved"
"""Folder for results that the storage could not take."""


class Store:
    """One study of a storage."""

    def __init__(self, url: str, name: str, folder: Path, *, shared: bool) -> None:
        """Open the storage and make the study, if there is none of this name.

        Args:
            url: As SQLAlchemy takes it, `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`.
            name: Of the study.
            folder: For results that the storage cannot take.
            shared: Whether other workers may use it at the same time.

        Raises:
            UsageError: There is no such storage, or its driver is missing.
        """
        self.name, self.folder, self.shared = name, folder, shared
        self._connection = Connection(url, shared=shared)
        self.url, self._storage, self._asked = self._connection.url, self._connection.storage, self._connection.asked
        self._silent: dict[int, float] = {}
        """Trials whose workers gave no sign of life yet -> when they were first seen, in this process' own time."""
        self.study_id = self._asked(self._study)

    def close(self) -> None:
        """Close the connections to the storage."""
        self._connection.close()

    def _study(self) -> int:
        from optuna.exceptions import DuplicatedStudyError
        from optuna.study import StudyDirection

        with contextlib.suppress(KeyError):
            return int(self._storage.get_study_id_from_name(self.name))
        try:
            return int(self._storage.create_new_study([StudyDirection.MINIMIZE] * 3, self.name))
        except DuplicatedStudyError:  # another worker was faster
            return int(self._storage.get_study_id_from_name(self.name))

    def facts(self) -> dict[str, Any]:
        """What is known of the whole study, unchecked (see `StudyFacts`)."""
        return dict(self._asked(lambda: self._storage.get_study_user_attrs(self.study_id)))

    def note(self, key: str, value: Any) -> None:
        """Keep a fact about the whole study; JSON."""
        self._asked(lambda: self._storage.set_study_user_attr(self.study_id, key, value))

    def records(self) -> list[Record]:
        """Every trial, in the order of their numbers; raises `UsageError` if one is none of a search."""
        trials = self._asked(
            lambda: sorted(
                self._storage.get_all_trials(self.study_id, deepcopy=False), key=lambda trial: int(trial.number)
            )
        )
        return [recorded(trial) for trial in trials]

    def begin(self, space: Space, point: Point, rung: Rung, origin: str, point_number: int | None = None) -> int | None:
        """Begin a trial; its number, or None if another worker does the same already, or the last one of the goals."""
        from optuna.trial import TrialState, create_trial

        attributes: dict[str, Any] = {"rung": rung, "origin": origin, "precision": space.precision(point)}
        if point_number is not None:
            attributes["point"] = point_number
        template = create_trial(
            state=TrialState.RUNNING,
            params=point,
            distributions={knob.name: knob.distribution() for knob in space.knobs},
            user_attrs=attributes,
        )
        trial_id = self._asked(lambda: self._storage.create_new_trial(self.study_id, template))
        if self.shared:
            self._asked(lambda: self._storage.record_heartbeat(trial_id))
            self._asked(lambda: self._storage.set_trial_user_attr(trial_id, _ALIVE, True))
        number = int(self._asked(lambda: self._storage.get_trial_number_from_id(trial_id)))
        if self.shared and self._is_needless(number, space.goals.trials):
            self.give_up(number, double=True)
            return None
        return number

    def _is_needless(self, number: int, most: int | None) -> bool:
        """Whether a trial with a lower number stands for the same, or those with lower numbers are `most` points."""
        records = self.records()
        own = next(record for record in records if record.number == number)
        others = [record for record in records if record.number < number and record.state != "lost"]
        is_new = own.point_number == own.number
        if is_new and own.origin != "sibling" and most is not None and len(models_of(others)) >= most:
            return True
        return any(
            (other.rung == own.rung and other.point_number == own.point_number) or (is_new and other.point == own.point)
            for other in others
        )

    def finish(self, number: int, outcome: Outcome) -> None:
        """Keep the result of a trial; if the storage does not take it, in a file, from which it is saved later.

        Raises:
            StorageGoneError: The storage does not answer.
        """
        path = self.folder / PENDING / f"{number}.json"
        try:
            self._save(number, outcome)
        except StorageGoneError as error:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, json.dumps(outcome.stored()).encode())
            error.hint = f"the result of trial {number} is kept in {path}; the same command saves it and goes on"
            raise
        path.unlink(missing_ok=True)

    def _save(self, number: int, outcome: Outcome) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        trial_id = self._id(number)
        with contextlib.suppress(UpdateFinishedTrialError):  # given to another worker meanwhile
            self._asked(lambda: self._storage.set_trial_user_attr(trial_id, "outcome", outcome.stored()))
            if outcome.failed or outcome.drop is None:
                self._asked(lambda: self._storage.set_trial_state_values(trial_id, TrialState.FAIL))
                return
            values = (
                outcome.drop.value,
                float(outcome.bytes or outcome.weight_bytes or 0),
                float(outcome.latency_ms or 0.0),
            )
            self._asked(lambda: self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, values))

    def save_pending(self) -> int:
        """Save results that an earlier process could not; how many there were.

        Raises:
            UsageError: A file there is none of them.
        """
        paths = sorted((self.folder / PENDING).glob("*.json"))
        known = {record.number for record in self.records()} if paths else set()
        for path in paths:
            hint = "remove it; its trial is then done again"
            text = read_text(path, UsageError, hint=hint)
            try:
                number, outcome = int(path.stem), Outcome.model_validate_json(text)
                if number not in known:
                    raise ValueError(f"there is no trial {number}")
            except ValueError as error:
                raise UsageError(f"{path} is no result of this study", hint=hint) from error
            self.finish(number, outcome)
        return len(paths)

    def give_up(self, number: int, *, double: bool = False) -> None:
        """End a trial without a result."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        trial_id = self._id(number)
        with contextlib.suppress(UpdateFinishedTrialError):
            if double:
                self._asked(lambda: self._storage.set_trial_user_attr(trial_id, "double", True))
            self._asked(lambda: self._storage.set_trial_state_values(trial_id, TrialState.FAIL))

    def give_up_all(self) -> None:
        """End the trials that are under way, of processes that are known to be gone."""
        for record in self.records():
            if record.state == "running":
                self.give_up(record.number)

    def give_up_stale(self) -> None:
        """End the trials whose workers gave no sign of life for `GRACE` seconds."""
        import optuna

        if not self.shared:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.load_study(study_name=self.name, storage=self._storage)
            self._asked(lambda: optuna.storages.fail_stale_trials(study))
        for number in self._without_a_sign():
            if time.monotonic() - self._silent.setdefault(number, time.monotonic()) > GRACE:
                self.give_up(number)

    def _without_a_sign(self) -> list[int]:
        """Trials of workers that may have been killed before their first sign of life, which Optuna waits for."""
        from optuna.trial import TrialState

        states = (TrialState.RUNNING,)
        running = self._asked(lambda: self._storage.get_all_trials(self.study_id, deepcopy=False, states=states))
        return [trial.number for trial in running if _ALIVE not in trial.user_attrs]

    @contextlib.contextmanager
    def alive(self, number: int) -> Iterator[None]:
        """Give signs of life for a trial while its work is done."""
        if not self.shared:
            yield
            return
        trial_id = self._id(number)
        with beating(lambda: self._storage.record_heartbeat(trial_id), HEARTBEAT):
            yield

    def _id(self, number: int) -> int:
        return int(self._asked(lambda: self._storage.get_trial_id_from_study_id_trial_number(self.study_id, number)))
