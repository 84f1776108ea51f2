"""How a compressed file differs from the original, in a few words and a tone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.render import format as form
from compressor.report import Drop

if TYPE_CHECKING:
    from compressor.render.blocks import Tone
    from compressor.report import Measurement, SpeedUp


def drop(before: Measurement, after: Measurement) -> Drop:
    """The recorded drop, or the plain difference of the two scores."""
    if after.drop is not None:
        return after.drop
    sign = 1 if before.score.higher_is_better else -1
    return Drop(value=(before.score.value - after.score.value) * sign + 0.0)


def describe_drop(drop: Drop) -> str:
    """`0.0054 worse`, `unchanged`."""
    if drop.value == 0:
        return "unchanged"
    return f"{form.metric(abs(drop.value))} {'worse' if drop.value > 0 else 'better'}"


def tone_of_drop(drop: Drop) -> Tone:
    """Bad only if the drop is larger than chance explains."""
    if drop.value <= 0:
        return "good"
    return "plain" if drop.interval is None or drop.interval.low <= 0 else "bad"


def describe_speed(speedup: SpeedUp | None) -> str:
    """`2.69x as fast`; empty if it was not measured."""
    if speedup is None:
        return ""
    if not speedup.is_claim:
        return f"{form.ratio(speedup.ratio)}, {'within noise' if speedup.within_noise else 'about the same'}"
    return f"{form.ratio(speedup.ratio)} as fast" + ("" if speedup.ratio > 1 else ", slower")


def tone_of_speed(speedup: SpeedUp) -> Tone:
    """Plain if the interval includes 1 or ends close to it."""
    if not speedup.is_claim:
        return "plain"
    return "good" if speedup.ratio > 1 else "bad"


def describe_ratio(speedup: SpeedUp | None) -> str:
    """The interval of the ratio of latencies; empty if it was not measured."""
    return "" if speedup is None else f"ratio: {form.between(speedup.interval, form.ratio)}"


def describe_size(before: float | None, after: float | None) -> str:
    """`3.52x smaller`; empty if one of them is not known."""
    return form.change(before, after, less="smaller", more="larger")


def describe_count(before: float | None, after: float | None) -> str:
    """`3.58x fewer`; empty if one of them is not known."""
    return form.change(before, after, less="fewer", more="more")


def tone_of_size(before: int, after: int) -> Tone:
    """Plain if about the same."""
    if describe_size(before, after) == "same":
        return "plain"
    return "good" if after < before else "bad"
