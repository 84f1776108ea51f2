"""`--log`: curves and results as each tool's own reader finds them; a missing client and a failing one."""

import importlib.util
import struct
from importlib import import_module
from typing import get_args

import pytest

from compressor.errors import OutputError, UsageError
from compressor.render import trackers
from compressor.render.trackers.facts import tracked


@pytest.fixture
def folder(tmp_path):
    """A run's folder."""
    (tmp_path / "run").mkdir()
    for name in ("report.html", "report.json"):
        (tmp_path / "run" / name).write_text(name)
    return tmp_path / "run"


def curves(report):
    """Each curve of a report, by its name."""
    found = {}
    for point in tracked(report).points:
        found.setdefault(point.name, []).append((point.at, pytest.approx(point.value)))
    return found


def test_a_run_has_settings_a_curve_for_each_number_of_a_training_and_results(report):
    told = tracked(report)
    trained = next(step for step in report.steps if step.history and len(step.history[0]) > 1)
    key = next(key for key in trained.history[0] if key != "epoch")
    curve = [
        value
        for name, value in curves(report).items()
        if name == f"{report.steps.index(trained) + 1}-{trained.method}/{key}"
    ]
    assert curve == [[(at, row[key]) for at, row in enumerate(trained.history, 1)]]
    assert told.parameters["name"] == report.name
    assert told.parameters["steps.0.method"] == report.steps[0].method
    first = report.compressed[0]
    assert told.results[f"{first.artifact.path}/bytes"] == first.artifact.bytes
    assert told.results[f"{report.original.artifact.path}/metric"] == report.original.score.value
    assert told.results["limits met"] == float(report.limits_met)


def test_tensorboard_reads_the_curves_and_results(report, folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert trackers.send("tensorboard", report, folder) == f"tensorboard --logdir {folder / 'tensorboard'}"
    read = EventAccumulator(str(folder / "tensorboard")).Reload()
    for name, points in curves(report).items():
        assert [(event.step, event.value) for event in read.Scalars(name)] == points
    for name, value in tracked(report).results.items():
        assert [event.value for event in read.Scalars(f"results/{name}")] == [pytest.approx(value)]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_run_with_its_curves_results_and_files(report, folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    address = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = trackers.send("mlflow", report, folder)
    client = mlflow.MlflowClient(address)
    experiment = client.get_experiment_by_name("compressor")
    (run,) = client.search_runs([experiment.experiment_id])
    assert place == f"MLflow run {run.info.run_id} at {address}"
    assert run.data.params["steps.0.method"] == report.steps[0].method
    plain = import_module("compressor.render.trackers.mlflow").plain
    for name, points in curves(report).items():
        history = client.get_metric_history(run.info.run_id, plain(name))
        assert [(item.step, item.value) for item in history] == points
    for name, value in tracked(report).results.items():
        assert run.data.metrics[plain(name)] == pytest.approx(value)
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"report.html", "report.json"}


def records_of(content):
    """The records of an offline run: a header of 7 bytes, then blocks of 32 KiB with parts of records in them."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, parts = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(parts)
            parts = b""


def _items(items):
    return {item.key or ".".join(item.nested_key): item.value_json for item in items}


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_an_offline_run_with_its_curves_and_results(report, folder, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    place = trackers.send("wandb", report, folder)
    assert place.startswith("offline run in ")
    wandb.teardown()  # its own process writes what it still holds
    (log,) = tmp_path.rglob("*.wandb")
    read = list(records_of(log.read_bytes()))
    rows = [_items(record.history.item) for record in read if record.HasField("history")]
    for name, points in curves(report).items():
        assert [(int(row[f"{name} at"]), float(row[name])) for row in rows if name in row] == points
    summary = {}
    for record in read:
        summary |= _items(record.summary.update)
    for name, value in tracked(report).results.items():
        assert float(summary[name]) == pytest.approx(value)


@pytest.mark.parametrize("name", get_args(trackers.Tracker))
def test_a_missing_client_is_named_with_its_extra(name, report, folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"`--log {name}` needs the package `{name}`") as caught:
        trackers.send(name, report, folder)
    assert caught.value.hint == f"pip install 'edge-compressor[{name}]'"


def test_a_client_that_fails_costs_no_run(report, folder, monkeypatch):
    monkeypatch.setattr(trackers, "need", lambda name: None)

    def fails(*_):
        raise ConnectionError("no route to the server")

    monkeypatch.setattr("compressor.render.trackers.mlflow.send", fails)
    with pytest.raises(OutputError, match="mlflow failed: no route to the server") as caught:
        trackers.send("mlflow", report, folder)
    assert f"`compressor report {folder} --log mlflow` sends it again" in caught.value.hint
