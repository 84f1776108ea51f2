"""Goals that nothing in the space can reach are refused before hours are spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from compressor.errors import CompressorError, UsageError
from compressor.measure import size
from compressor.render.format import decimal_size
from compressor.studies.search import files
from compressor.studies.search.goal_kinds import meets
from compressor.studies.search.stored import fewest_forms, weight_bytes

if TYPE_CHECKING:
    from torch import nn

    from compressor.studies.search.compressed import Compressed
    from compressor.studies.search.evaluation import Evaluator
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.study_facts import OriginalFile


_FASTER: Final = 0.5
"""Of the time of the fastest call of the smallest model: a goal below is out of reach on a busy machine too."""


def refuse_needless(goals: Goals, original: OriginalFile) -> None:
    """Refuse to search for the smallest loss within goals that the original meets: nothing loses less.

    Args:
        goals: What is asked for.
        original: Its file.

    Raises:
        UsageError: The original is the answer.
    """
    if goals.objective == "drop" and meets(goals, original):
        took = "" if original.latency_ms is None else f" and takes {original.latency_ms:.3g} ms"
        size = decimal_size(original.bytes)
        raise UsageError(
            f"the original meets these goals: its file has {size}{took}, and nothing loses less",
            hint="`compressor export` writes it; to make it smaller, give --max-drop and --minimize bytes",
        )


def refuse_impossible(evaluator: Evaluator, original_graph: int) -> None:
    """Make the smallest model of the space, and refuse a `max_bytes` or `max_latency` that even it is far from.

    Nothing in the space has fewer weights or bits, and no method takes operators out of the graph of the original: so
    weights and graph are a bound on the bytes. For the latency, its file is timed.

    Raises:
        UsageError: The goal cannot be reached.
    """
    space = evaluator.space
    if space.goals.max_bytes is None and space.goals.max_latency is None:
        return
    point = space.smallest()
    try:
        model = evaluator.compressed(point, 0)
    except CompressorError:  # not everything can go at once; then there is no such bound
        return
    if space.goals.max_bytes is not None:
        _refuse_bytes(model.state.model, space.precision(point), space.goals.max_bytes, original_graph)
    if space.goals.max_latency is not None:
        _refuse_latency(evaluator, model, space.goals.max_latency)


def _refuse_bytes(model: nn.Module, precision: str | None, goal: int, original_graph: int) -> None:
    least = weight_bytes(model, fewest_forms(model, precision), precision) + original_graph
    if goal < least:
        raise UsageError(
            f"no file can have {decimal_size(goal)} or less: with all that can go removed, {size.count(model)[0]:,} "
            f"parameters in {precision or 'float32'} and the graph take at least {decimal_size(least)}",
            hint=f"raise max_bytes above {decimal_size(least)}, or allow more with `use` and `allow`",
        )


def _refuse_latency(evaluator: Evaluator, model: Compressed, goal: float) -> None:
    try:
        fastest = files.fastest_ms(evaluator.subject, model, evaluator.space.goals.exports[0].unrounded())
    except CompressorError:  # so small a model cannot be exported: no bound
        return
    if goal < _FASTER * fastest:
        raise UsageError(
            f"no file can take {goal:.3g} ms or less on this machine: with all that can go removed, the fastest call "
            f"of the float file took {fastest:.3g} ms",
            hint="raise max_latency, or allow more with `use` and `allow`",
        )
