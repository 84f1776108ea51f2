"""Goals that nothing in the space can reach are refused before hours are spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import CompressorError, UsageError
from compressor.measure import size
from compressor.render.format import decimal_size
from compressor.studies.search.stored import fewest_forms, weight_bytes

if TYPE_CHECKING:
    from compressor.studies.search.evaluation import Evaluator


def refuse_impossible(evaluator: Evaluator, original_graph: int) -> None:
    """Make the smallest model of the space, and refuse a `max_bytes` below what its weights and the graph take.

    Nothing in the space has fewer weights or bits, and no method takes operators out of the graph of the original.

    Raises:
        UsageError: The goal cannot be reached.
    """
    space = evaluator.space
    goal = space.goals.max_bytes
    if goal is None:
        return
    point = space.smallest()
    precision = space.precision(point)
    try:
        model = evaluator.compressed(point, 0).model
    except CompressorError:  # not everything can go at once; then there is no such bound
        return
    least = weight_bytes(model, fewest_forms(model, precision), precision) + original_graph
    if goal < least:
        raise UsageError(
            f"no file can have {decimal_size(goal)} or less: with all that can go removed, {size.count(model)[0]:,} "
            f"parameters in {precision or 'float32'} and the graph take at least {decimal_size(least)}",
            hint=f"raise max_bytes above {decimal_size(least)}, or allow more with `use` and `allow`",
        )
