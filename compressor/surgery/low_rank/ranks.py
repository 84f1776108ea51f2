"""Which rank each matrix gets, and why one is left as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.errors import MethodError, UsageError
from compressor.nn.factorisation import rank_for_energy
from compressor.nn.rank_budget import Candidate, allocate_ranks
from compressor.surgery.low_rank.matrices import HEAD_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from compressor.surgery.low_rank.analysis import Cut

PAYS: dict[str, tuple[int, float]] = {"LSTM": (384, 0.5), "GRU": (384, 0.5), "RNN": (128, 0.5)}
"""Cell -> from how many units on a recurrent matrix of two factors was measured to run faster than the dense node, and
up to which rank, as a part of the hidden size. See docs/concepts/low-rank.md."""
PAYS_STEP: dict[str, tuple[int, float]] = {"LSTM": (256, 0.5), "GRU": (256, 0.5)}
"""The same for a file of one step (the task's `length` is 1), which has no loop to pay for; an RNN never ran faster."""
_ARTICLES = {"LSTM": "an LSTM", "GRU": "a GRU", "RNN": "an RNN"}

Limit = tuple[int, str]
"""The largest rank that makes sense for a matrix, and why."""


def rank_limit(model: nn.Module, cut: Cut, steps: int, *, only_faster: bool) -> Limit:
    """The largest rank at which a matrix gets smaller, and with `only_faster` a recurrent one faster.

    Args:
        model: The model that the cut was analysed in.
        cut: The matrix.
        steps: Typical length of a sequence; 1 for a file of one step.
        only_faster: Refuse ranks of recurrent matrices that were measured to run slower.
    """
    saves = _why_not_smaller(cut)
    if cut.site.kind != "recurrent" or not only_faster or "weight_hh" not in cut.site.local:
        return cut.most, saves
    layer = model.get_submodule(cut.site.module)
    pays, reason = fastest_rank(str(layer.mode), int(layer.hidden_size), steps)  # type: ignore[arg-type]
    return (pays, reason) if pays < cut.most else (cut.most, saves)


def choose_ranks(
    cuts: Sequence[Cut],
    limits: Mapping[str, Limit],
    *,
    rank: int | None = None,
    energy: float | None = None,
    parameters: float | None = None,
) -> tuple[dict[str, int], dict[str, str]]:
    """Name -> rank of what is cut, and name -> reason of what is not.

    Args:
        cuts: What may be cut.
        limits: Name -> its `rank_limit`.
        rank: The rank of each; or
        energy: the part of the energy that each keeps; or
        parameters: the part of the parameters of all of them together that is left.

    Raises:
        MethodError: Not even rank 1 everywhere has so few parameters.
    """
    idle = {name: reason for name, (most, reason) in limits.items() if most < 1}
    able = [cut for cut in cuts if cut.site.name not in idle]
    wanted: Mapping[str, int | None]
    if parameters is not None:
        wanted = _by_budget(able, limits, parameters)
    elif rank is not None:
        wanted = dict.fromkeys((cut.site.name for cut in able), rank)
    else:
        assert energy is not None
        wanted = {cut.site.name: rank_for_energy(torch.tensor(cut.losses), energy) for cut in able}
    ranks: dict[str, int] = {}
    for name, chosen in wanted.items():
        most, reason = limits[name]
        if chosen is None:
            idle[name] = "the budget is better spent elsewhere: it stays as it is"
        elif chosen > most:
            idle[name] = f"rank {chosen} is wanted, and {reason}"
        else:
            ranks[name] = chosen
    return ranks, idle


def _by_budget(cuts: Sequence[Cut], limits: Mapping[str, Limit], parameters: float) -> dict[str, int | None]:
    candidates = {
        cut.site.name: Candidate(cut.dense, cut.per_rank, cut.losses, limits[cut.site.name][0]) for cut in cuts
    }
    try:
        return allocate_ranks(candidates, int(parameters * sum(cut.dense for cut in cuts)))
    except UsageError as error:
        raise MethodError(f"`parameters: {parameters:g}`: {error.message}", hint="raise it") from error


def fastest_rank(mode: str, hidden: int, steps: int) -> tuple[int, str]:
    """The largest rank of a recurrent matrix that was measured to run faster than dense, 0 if none was, and why.

    Args:
        mode: As `nn.RNNBase` has it.
        hidden: H.
        steps: Typical length of a sequence; 1 for a file of one step.
    """
    cell = mode.partition("_")[0]
    measured = (PAYS_STEP if steps == 1 else PAYS).get(cell)
    if measured is None or hidden < measured[0]:
        pays = "never in a file of one step" if measured is None else f"from {measured[0]} units on"
        return 0, (
            f"{_ARTICLES[cell]} of {hidden} units runs slower with two factors for its recurrent matrix, whatever the "
            f"rank (measured; it pays {pays}, see docs/results/low-rank.md); `recurrent: smaller` takes it for the "
            "size alone"
        )
    part = measured[1]
    rank = int(part * hidden)
    return rank, (
        f"{_ARTICLES[cell]} of {hidden} units was measured to run faster up to rank {rank} only ({part:g} x hidden "
        "size, see docs/results/low-rank.md); `recurrent: smaller` takes it for the size alone"
    )


def _why_not_smaller(cut: Cut) -> str:
    if cut.site.kind in HEAD_KINDS:
        return f"a head has {cut.full} features"
    rows, columns = cut.site.shape
    return (
        f"two factors of a {rows} x {columns} matrix have fewer parameters than it up to rank {cut.most} only "
        "(r < m n / (m + n))"
    )
