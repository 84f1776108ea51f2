"""The targets of a conversion by their words: the one list of them. It comes without torch, for options and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Target = Literal["fsmn", "lssl", "para_rnn", "additive", "plstm", "m2rnn"]
"""The word after `to`, and the module of this folder that has the layer."""
WORDS: Final[tuple[Target, ...]] = get_args(Target)


@dataclass(frozen=True)
class Description:
    """What options, help and records say of a target."""

    layer: str
    """Its class in the module of the word."""
    what: str
    """What it computes, what it keeps and what is lost, in one sentence."""
    options: tuple[str, ...]
    """Those options of `convert` that not all targets have."""


_HEADS: Final = ("projection", "depth", "heads", "keys")
_CACHE: Final = ("memory_cache", "cache_segment")

DESCRIPTIONS: Final[Mapping[Target, Description]] = {
    "fsmn": Description(
        "FsmnLayer",
        "feedforward sequential memory, projections and a depthwise convolution over time: no loop, all of it taken by "
        "accelerators, a fixed memory of `(order - 1) * sum(dilations)` positions; what has to be remembered longer is "
        "lost",
        ("projection", "order", "dilations", "lookahead"),
    ),
    "lssl": Description(
        "LsslLayer",
        "a linear state-space layer, in which channels pass through linear systems: a long memory, a convolution over "
        "the whole sequence or a small state, and another sampling rate without training",
        ("projection", "depth", "state", "oscillators", "state_size", *_CACHE),
    ),
    "para_rnn": Description(
        "ParaLayer",
        "a diagonal GRU or LSTM, whose units see their own state only: no recurrent matrix, and training over all "
        "positions at once",
        ("depth", "cell", "clip"),
    ),
    "additive": Description(
        "AdditiveLayer",
        "running averages of values, weighted by what each position says of itself, among which the input chooses: no "
        "loop, and a memory that fades as slowly as it learns to",
        (*_HEADS, "forget", *_CACHE),
    ),
    "plstm": Description(
        "PlstmLayer",
        "sums of products of keys and values that fade as gates say, among which the input chooses: no loop over time "
        "either",
        (*_HEADS, "constant_gates"),
    ),
    "m2rnn": Description(
        "M2rnnLayer",
        "a loop over time: heads whose state is a matrix that every position mixes and squashes, so that it can track "
        "a state",
        _HEADS,
    ),
}
"""Word -> its description."""
OWN_OPTIONS: Final[Mapping[str, tuple[Target, ...]]] = {
    option: tuple(word for word in WORDS if option in DESCRIPTIONS[word].options)
    for target in DESCRIPTIONS.values()
    for option in target.options
}
"""Option of `convert` -> the only targets that have it."""
