"""What each target of `convert` is built from: those options of the step that its record names."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from compressor.nn.converted.recurrent import TARGETS
from compressor.nn.recurrent.layers import cell_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from compressor.nn.converted.layer import SequenceLayer
    from compressor.nn.converted.recurrent import ConvertedRecurrent
    from compressor.nn.converted.target import Target
    from compressor.surgery.converting.conversion import Build


def builder(to: Target, options: Mapping[str, Any], old: Any) -> Build:
    """Makes the layers that replace those of `old`, with any weights: `depth` for each, `hidden` wide in between.

    Args:
        to: The target.
        options: Those of the step `convert`.
        old: The layer that is replaced.
    """

    def build(inputs: int, outputs: int, like: Tensor) -> list[SequenceLayer]:
        own = _fields(to, options, old, outputs)
        widths = [inputs, *[own["hidden"]] * (options["depth"] - 1), outputs]
        return [
            TARGETS[to].from_fields(
                {"input_size": read, "output_size": given, **own}, device=like.device, dtype=like.dtype
            )
            for read, given in pairwise(widths)
        ]

    return build


def note(old: Any, new: ConvertedRecurrent) -> str:
    """What became what, in one line."""
    last = new.each[-1]
    several = f", {new.depth} layers for each" if new.depth > 1 else ""
    memory = "" if last.memory is None else f", a memory of {last.memory} positions a layer"
    ahead = f", {last.lookahead} ahead" if last.lookahead else ""
    return f"{type(old).__name__} to {new.target}: {last.described(last.record())}{several}{memory}{ahead}"


def _fields(to: Target, options: Mapping[str, Any], old: Any, outputs: int) -> dict[str, Any]:
    """The entries of the target's record that are options, or follow from some; the others keep their defaults."""
    channels = options["projection"] or max(1, outputs // 2)
    known = {
        **options,
        "hidden": options["hidden"] or outputs,
        "projection": channels,
        "values": max(1, channels // options["heads"]),
        "cell": options["cell"] or _cell(old),
        "oscillators": None if options["state"] == "dense" else options["oscillators"],
        "state_size": options["state_size"] if options["state"] == "dense" else None,
    }
    return {name: known[name] for name in TARGETS[to].record_type.model_fields if name in known}


def _cell(old: Any) -> str:
    """With a cell state if the old layer has one."""
    return "lstm" if len(cell_of(old).states) > 1 else "gru"
