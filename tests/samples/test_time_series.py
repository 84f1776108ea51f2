"""The time-series sample: frames, windows, splits, causal networks, and what the README says of the checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.errors import TaskError
from compressor.surgery.attention.causality import evidence
from compressor.task.loading import load

FOLDER = Path(__file__).parents[2] / "samples" / "time_series"
sys.path.insert(0, str(FOLDER))

import bundled  # noqa: E402
import causal  # noqa: E402
import weather  # noqa: E402

needs_weather = pytest.mark.skipif(
    not (weather.CACHE / weather.FILE).is_file(), reason="run samples/time_series/fetch.py first"
)
MAX_CHECKPOINT_BYTES = 500_000
CLASSIFICATION = ("Vowels", "Motions", "Gun", "Power")
ACCURACY = {"Vowels": 0.9865, "Motions": 0.875, "Gun": 0.9533, "Power": 0.9485}


def task_of(name):
    return load(f"{FOLDER / 'task.py'}:{name}")


# --- frames ----------------------------------------------------------------------------------------------------------


def test_every_sample_has_a_frame_of_itself_and_those_before_it():
    series = torch.arange(1.0, 5.0)[:, None] * torch.tensor([1.0, -1.0])  # (4, 2)
    found = bundled.frames(series, frame=3, hop=1)
    assert found[:, ::2].tolist() == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert torch.equal(found[:, 1::2], -found[:, ::2])


def test_frames_hop_and_the_last_one_ends_with_the_last_sample():
    found = bundled.frames(torch.arange(1.0, 8.0)[:, None], frame=2, hop=3)
    assert found.tolist() == [[2, 3], [5, 6], [6, 7]]


def test_no_frame_holds_a_sample_later_than_its_end():
    series = torch.randn(23, 3, generator=torch.Generator().manual_seed(0))
    changed = series.clone()
    changed[12:] = 9.0
    assert torch.equal(bundled.frames(series, 5, 4)[:3], bundled.frames(changed, 5, 4)[:3])  # they end with sample 11


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_no_series_is_in_two_splits_and_each_class_is_in_every_one(name):
    chosen = sys.modules[type(task_of(name).task).__module__].TASKS[name.lower()].series
    parts = [bundled.split(chosen, which) for which in ("train", "validation", "test")]
    assert len({tuple(part[1].unique().tolist()) for part in parts}) == 1
    rows = [
        tuple(row[: int(n)].flatten().tolist()) for (x, lengths), _ in parts for row, n in zip(x, lengths, strict=True)
    ]
    assert len(set(rows)) == len(rows)


# --- weather ---------------------------------------------------------------------------------------------------------

HEAD = "origin,time_hour," + ",".join(weather.CHANNELS)


def line(origin, hour, *values):
    return f"{origin},2013-01-01T{6 + hour:02d}:00:00Z," + ",".join(map(str, values))


def table(middle):
    """Three airports and four hours; `middle` is the first airport's third one."""
    rows = [line("EWR", 0, *[1] * 6), line("EWR", 1, *[3] * 6), *middle, line("EWR", 3, *[7] * 6)]
    return "\n".join([HEAD, *rows, *(line(o, h, *[h] * 6) for o in ("JFK", "LGA") for h in range(4))])


def test_missing_hours_and_values_lie_on_the_line_between_their_neighbours():
    absent = weather.read(table([]), hours=4)
    unknown = weather.read(table([line("EWR", 2, "NA", 4, 4, 1048.4, "NA", 4)]), hours=4)
    assert absent[0, :, 0].tolist() == [1, 3, 5, 7]
    assert unknown[0, 2].tolist() == [5, 4, 4, 5, 5, 4]
    assert absent[2, :, 5].tolist() == [0, 1, 2, 3]


def test_task_without_fetched_weather_says_how_to_fetch_it(monkeypatch, tmp_path):
    monkeypatch.setattr(weather, "CACHE", tmp_path)
    weather.year.cache_clear()
    with pytest.raises(TaskError, match=r"weather\.csv is missing") as caught:
        next(iter(task_of("Weather96").batches(torch.Generator())))
    assert "python samples/time_series/fetch.py" in caught.value.hint


@pytest.fixture
def counted(monkeypatch):
    """Weather whose channel is the hour of the year, the same at each airport."""
    hours = torch.arange(float(weather.HOURS))
    made = hours[None, :, None].expand(len(weather.AIRPORTS), -1, len(weather.CHANNELS) + weather.CLOCK)
    monkeypatch.setattr(weather, "year", lambda: made)


def test_what_is_forecast_follows_the_window_and_lies_in_its_own_part_of_the_year(counted):
    seen = []
    for name, part in weather.PARTS.items():
        known, ahead = weather.windows(name, horizon=96, every=1)
        assert known.shape[1:] == (weather.WINDOW, 8)
        assert torch.equal(ahead[:, 0, 0], known[:, -1, 0] + 1)
        assert (float(ahead.min()), float(ahead.max())) == (part.first, part.end - 1)
        seen += ahead[:, :, 0].unique().tolist()
    assert sorted(seen) == list(range(weather.WINDOW, weather.HOURS))


def test_seasonal_forecast_repeats_the_last_day(counted):
    known, _ = weather.windows("test", 192, every=500)
    found = weather.seasonal_naive(known, 50)
    assert torch.equal(found[:, :24], known[:, -24:, :6])
    assert torch.equal(found[:, 48:], known[:, -24:-22, :6])
    assert torch.allclose(weather.window_mean(known, 3)[:, 2, 0], known[:, :, 0].mean(1))


# --- networks --------------------------------------------------------------------------------------------------------


def test_padding_and_later_frames_do_not_change_the_logits():
    torch.manual_seed(0)
    net = causal.Classifier(5, 3).eval()
    frames = torch.randn(2, 11, 5, generator=torch.Generator().manual_seed(1))
    changed = frames.clone()
    changed[:, 7:] = 3.0
    lengths = torch.tensor([7, 4])
    with torch.no_grad():
        assert torch.allclose(net(frames, lengths), net(changed, lengths), atol=1e-6)
        assert torch.allclose(net(frames[:, :7], lengths), net(frames, lengths), atol=1e-6)


def test_a_forecast_moves_and_grows_with_its_window_channel_by_channel():
    torch.manual_seed(0)
    net = causal.Forecaster(channels=3, clock=2, horizon=5).eval()
    window = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(1))
    scale, shift = torch.tensor([2.0, 1.0, 7.0]), torch.tensor([0.0, -3.0, 40.0])
    other = torch.cat([window[:, :, :3] * scale + shift, window[:, :, 3:]], dim=2)
    with torch.no_grad():
        assert net(window).shape == (4, 5, 3)
        assert torch.allclose(net(other), net(window) * scale + shift, atol=1e-3)


def test_a_channel_that_never_changes_is_forecast_without_nan():
    net = causal.Forecaster(channels=2, clock=1, horizon=3).eval()
    with torch.no_grad():
        assert bool(net(torch.full((2, 4, 3), 10.0)).isfinite().all())


@pytest.mark.parametrize("kind", ["classifier", "forecaster"])
def test_methods_for_causal_attention_find_it_in_both_layers(kind):
    torch.manual_seed(0)
    frames = torch.randn(2, 7, 5)
    inputs = (frames, torch.tensor([7, 3])) if kind == "classifier" else (frames,)
    net = causal.Classifier(5, 3) if kind == "classifier" else causal.Forecaster(3, 2, 4)
    names = [name for name, part in net.named_modules() if isinstance(part, torch.nn.MultiheadAttention)]
    found = evidence(net.eval(), names, [inputs])
    assert len(found) == causal.LAYERS
    assert {seen.reason for seen in found.values()} == {None}


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_committed_checkpoint_has_the_accuracy_of_the_readme(name):
    task = task_of(name)
    with torch.no_grad():
        correct = task.evaluate(task.model())
    assert float(correct.mean()) == pytest.approx(ACCURACY[name], abs=1.5 / len(correct))


@needs_weather
@pytest.mark.parametrize(("name", "error"), [("Weather96", 0.9728), ("Weather192", 1.0478)])
def test_committed_forecaster_has_the_error_of_the_readme_and_beats_the_last_day(name, error):
    weather.year.cache_clear()
    task = task_of(name)
    with torch.no_grad():
        found = task.evaluate(task.model()).value
    known, ahead = weather.windows("test", task.task.horizon, every=5)
    naive = float((weather.seasonal_naive(known, task.task.horizon) - ahead).square().mean())
    assert found == pytest.approx(error, abs=0.002)
    assert found < 0.7 * naive


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.safetensors")), ids=lambda file: file.stem)
def test_checkpoint_is_small(file):
    assert file.stat().st_size < MAX_CHECKPOINT_BYTES


def test_errors_are_those_of_all_windows_and_not_the_mean_of_batches():
    errors = sys.modules[type(task_of("Vowels").task).__module__].errors
    known, ahead = torch.zeros(259, 4, 3), torch.zeros(259, 2, 1)
    ahead[-1] = 3.0
    found = errors(lambda window: torch.zeros(len(window), 2, 1), known, ahead)
    assert found.value == pytest.approx(9 / 259)
    assert found.parts["mean absolute error"] == pytest.approx(np.abs(ahead.numpy()).mean())


def test_batches_cover_the_training_series_once_in_the_generators_order():
    task = task_of("Gun")
    first, again = (list(task.batches(torch.Generator().manual_seed(5))) for _ in range(2))
    module = sys.modules[type(task.task).__module__]
    classes = torch.cat([target for _, target in first])
    assert torch.equal(classes.sort().values, module.split(task.task.series, "train")[1].sort().values)
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(first, again, strict=True))


def test_results_are_of_the_committed_checkpoints_and_in_the_readme():
    rows = json.loads((FOLDER / "results.json").read_text())["rows"]
    first = {row["task"]: row for row in rows if row["seed"] == 0}
    assert {name: first[name.lower()]["attention"] for name in CLASSIFICATION} == ACCURACY
    readme = (FOLDER / "README.md").read_text()
    for name, row in first.items():
        seeds = [other for other in rows if other["task"] == name]
        mean = sum(other["attention"] for other in seeds) / len(seeds)
        assert f"| {name} | {len(seeds)} | {mean:.3f} (" in readme
        assert row["parameters"][1] == row["parameters"][0] + causal.LAYERS * causal.WIDTH
