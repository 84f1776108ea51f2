"""Zeros in weights by magnitude: N of every M, or down to a sparsity in one or more rounds with retraining between."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from compressor.methods.pruning import masked, refuse_idle
from compressor.report import Skip
from compressor.training.snapshots import NoSnapshots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.methods.base import Context, State
    from compressor.methods.retrain import Retrain
    from compressor.nn.weight_groups import WeightGroup


def to_pattern(state: State, names: Sequence[str], pattern: str) -> tuple[State, list[Skip]]:
    """Keep the N largest of every M consecutive weights.

    Args:
        state: With a mask of each of these parameters.
        names: Of the parameters.
        pattern: `N:M`.

    Raises:
        MethodError: No parameter has more left.
    """
    from compressor.nn.masks import n_of_m

    n, m = (int(part) for part in pattern.split(":"))
    masks = {name: n_of_m(state.model.get_parameter(name), state.masks[name], n, m) for name in names}
    idle = [name for name in names if masks[name].equal(state.masks[name])]
    skipped = [Skip(name=name, reason=f"no {m} consecutive weights have more than {n} left") for name in idle]
    refuse_idle(skipped, len(names), "take this step out of the recipe")
    return masked(state, masks), skipped


def in_rounds(
    state: State,
    groups: Sequence[WeightGroup],
    context: Context,
    *,
    rounds: int,
    schedule: Literal["linear", "cubic"] | None,
    retrain: Retrain | None,
) -> tuple[State, tuple[dict[str, float], ...], tuple[str, ...]]:
    """Prune to the goal in one or more rounds, with retraining between; gives the history and notes of that."""
    from compressor.nn.weight_groups import round_masks, sparsity_of

    history: list[dict[str, float]] = []
    notes: dict[str, None] = {}
    for done in range(1, rounds + 1):
        state = masked(state, round_masks(state.model, state.masks, groups, done / rounds, schedule))
        if retrain is None:
            continue
        row = {"round": float(done), "sparsity": sparsity_of(state.masks, groups)}
        if done == rounds:
            history.append(row)
            continue
        context.progress.say(f"round {done} of {rounds}: sparsity {row['sparsity']:.3f}, then retraining")
        # Each round is a training of its own: what one keeps for a kill is not where the next one begins.
        trained = retrain.apply(state, replace(context, snapshots=NoSnapshots()))
        state = trained.state
        history += [row | epoch for epoch in trained.history]
        notes |= dict.fromkeys(trained.notes)
    return state, tuple(history), tuple(notes)
