"""Several workers of one study: nothing is lost or done twice, whoever is killed."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from compressor.errors import CompressorError
from compressor.report import Drop
from compressor.studies.search import connection
from compressor.studies.search.connection import StorageGoneError
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.sampling import lost_points
from compressor.studies.search.storage import Store
from tests.studies.search import postgresql
from tests.studies.search.test_storage import POINT, SPACE
from tests.studies.search.tiny import TASK

pytestmark = pytest.mark.slow
TRIALS = 8


@pytest.fixture(scope="module")
def database():
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    folder.chmod(0o755)
    with postgresql.server(folder / "server") as running:
        yield running


@pytest.fixture
def opened():
    """Opens stores that others use too, and closes them in the end."""
    stores = []

    def made(url, name, folder):
        stores.append(Store(url, name, folder, shared=True))
        return stores[-1]

    yield made
    for store in stores:
        store.close()


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(textwrap.dedent(TASK), encoding="utf-8")
    return path


def command(task, out, *options):
    base = [sys.executable, "-m", "compressor.cli", "search", "--task", str(task), "--out", str(out)]
    return [*base, "--max-drop", "0.03", "--trials", str(TRIALS), *options]


def done_once(records):
    """Every point and rung has one result, and nothing is left under way or without a result."""
    done = [record for record in records if record.state == "done"]
    results = Counter((record.point_number, record.rung) for record in done)
    models = [record for record in done if record.origin != "sibling"]
    points = {record.point_number: str(sorted(record.point.items())) for record in models}
    assert set(results.values()) == {1}
    assert len(points) == len(set(points.values())) == TRIALS
    assert not any(record.state == "running" for record in records)
    assert lost_points(records) == []


def test_two_workers_share_a_study_of_postgresql_and_one_is_killed(database, opened, task, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ("--storage", database.url, "--name", "shared")
    first = subprocess.Popen(command(task, tmp_path / "one", *options), stderr=subprocess.DEVNULL)
    second = subprocess.Popen(command(task, tmp_path / "two", *options), stderr=subprocess.DEVNULL)
    store = opened(database.url, "shared", tmp_path)
    while sum(record.state == "done" for record in store.records()) < 3:
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(600) == 0
    done_once(store.records())
    assert (tmp_path / "two" / "best" / "model.onnx").is_file()


def test_a_server_that_goes_away_is_an_error_and_the_result_is_saved_later(database, opened, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "PATIENCE", 1.0)
    store = opened(database.url, "gone", tmp_path)
    number = store.begin(SPACE, POINT, 0, "seed")
    outcome = Outcome(drop=Drop(value=0.0), weight_bytes=3)
    database.stop()
    try:
        with pytest.raises(StorageGoneError, match="does not answer") as caught:
            store.finish(number, outcome)
    finally:
        database.start()
    assert "is kept in" in caught.value.hint
    assert store.save_pending() == 1
    assert [record.outcome for record in store.records()] == [outcome]


def test_two_jobs_of_one_command_do_everything_once(task, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = subprocess.run(command(task, tmp_path / "out", "--jobs", "2"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = Store(f"sqlite:///{tmp_path / 'out' / 'study.db'}", "search", tmp_path, shared=False).records()
    done_once(records)


def test_workers_on_a_local_ray_cluster_do_everything_once(task, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ("--ray", "local", "--jobs", "2")
    done = subprocess.run(command(task, tmp_path / "out", *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = Store(f"sqlite:///{tmp_path / 'out' / 'study.db'}", "search", tmp_path, shared=False).records()
    done_once(records)


def test_a_worker_that_fails_says_what_is_wrong(task, tmp_path, monkeypatch):
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.place import Place
    from compressor.studies.search.preparing import prepare
    from compressor.studies.search.workers import work_together

    class Quiet:
        def say(self, text):
            pass

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    goals = Goals.model_validate({"max_drop": 0.03, "trials": 2})
    place = Place(str(task), tmp_path, jobs=1, storage=f"sqlite:///{tmp_path / 'study.db'}")
    worker = prepare(goals, place)
    task.write_text("raise SystemExit", encoding="utf-8")
    with pytest.raises(CompressorError, match="task file raised"):
        work_together(worker, goals, place, Quiet())
