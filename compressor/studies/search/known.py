"""Frontiers that searches found before: what to expect for a model like one's own, and where to start.

Every search writes its own as `frontier.json`; those of the samples are in `frontiers/` beside this file.
"""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

from compressor.errors import ReportError, UsageError
from compressor.files import read_text
from compressor.report import KnownFrontier

if TYPE_CHECKING:
    from compressor.report import KnownPoint
    from compressor.studies.search.knobs import Point
    from compressor.studies.search.space import Space

FILE: Final = "frontier.json"
"""In the folder of a search."""
_FOLDER: Final = Path(__file__).with_name("frontiers")


def names() -> tuple[str, ...]:
    """Of the frontiers that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def read(name: str) -> KnownFrontier:
    """A frontier that comes with the package, or one of a search, by its file or folder.

    Raises:
        UsageError: There is none.
        ReportError: The file holds something else.
    """
    path = _FOLDER / f"{name}.json"
    if name not in names():
        path = Path(name)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            near = difflib.get_close_matches(name, names(), n=1)
            raise UsageError(
                f"there is no frontier `{name}`",
                hint=f"did you mean `{near[0]}`?"
                if near
                else f"there are {', '.join(names())}; or give the folder of a search",
            )
    try:
        return KnownFrontier.from_json(read_text(path, ReportError))
    except ReportError as error:
        raise ReportError(f"{path} is {error.message}", hint=error.hint) from error


def starts(space: Space, frontier: KnownFrontier, most: int) -> list[Point]:
    """Points of a space that are most like those of a frontier, spread over it.

    Amounts (the part of units that goes, bits, the score) are taken over; what one layer differs from another is not,
    since the layers are others; the length of a retraining keeps its place between the shortest and the longest.

    Args:
        space: Of another model, or of the same.
        frontier: What is known.
        most: Points at most.
    """
    step = max(1.0, len(frontier.points) / most)
    chosen = [frontier.points[int(index * step)] for index in range(min(most, len(frontier.points)))]
    return [space.canonical(_like(space, point, frontier.batches)) for point in chosen]


def _like(space: Space, known: KnownPoint, batches: tuple[int, int] | None) -> Point:
    point = dict(space.at_rest)
    for knob in space.knobs:
        value = known.knobs.get(knob.name)
        if value is None or ("." in knob.name and not knob.words and not knob.name.endswith(".map")):
            continue
        if knob.words:
            point[knob.name] = str(value) if str(value) in knob.words else point[knob.name]
        elif isinstance(value, str):
            continue
        elif knob.name == "batches" and batches is not None:
            low, high = map(math.log, batches)
            place = math.log(min(max(value, batches[0]), batches[1])) - low
            point[knob.name] = knob.at(place / (high - low) if high > low else 0.5)
        else:
            point[knob.name] = knob.nearest(float(value))
    return point
