"""What several processes that carry out one training have in common beside the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compressor.task.random_state import random_state, set_random_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import Tensor

    from compressor.training.snapshots import Snapshots
    from compressor.training.team import Team


def share_random_state(team: Team, device: torch.device) -> None:
    """Let generators that belong to nobody, from which a task may draw its batches, go on as the leader's do."""
    if team.size > 1:
        set_random_state(*team.agreed(lambda: random_state(device)), device)


class SharedSnapshots:
    """Those of the process that leads a team: all go on from what it finds."""

    def __init__(self, own: Snapshots, team: Team, device: torch.device) -> None:
        """`own` counts in the leader alone; `device` is the one of this process."""
        self._own, self._team, self._device = own, team, device

    def load(self) -> tuple[Mapping[str, Tensor], Any] | None:
        """What the leader has; random generators that belong to nobody are set to its."""
        known = self._team.agreed(self._own.load)
        share_random_state(self._team, self._device)
        return known

    def save(self, tensors: Callable[[], Mapping[str, Tensor]], facts: Callable[[], Any]) -> None:
        """The leader keeps it."""
        if self._team.rank == 0:
            self._own.save(tensors, facts)
