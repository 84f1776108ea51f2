"""What a probe trains: tasks, effort and seeds, in three sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from compressor.probing.associative_recall import AssociativeRecall
from compressor.probing.in_context import InContextLanguage
from compressor.probing.long_gap import LongGap
from compressor.probing.selectivity import Selectivity
from compressor.probing.state_tracking import StateTracking
from compressor.probing.training import Effort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.probing.tasks import ProbeTask

Budget = Literal["rehearsal", "standard", "thorough"]


@dataclass(frozen=True)
class Plan:
    """What is trained: everything on which a result depends, beside the architectures."""

    tasks: tuple[ProbeTask, ...] = (AssociativeRecall(), StateTracking(), LongGap())
    effort: Effort = field(default_factory=Effort)
    seeds: int = 3
    first_seed: int = 0
    easier: bool = True
    """Repeat a task that neither side learns in its easier form, if it has one."""


MORE_TASKS: Final[Mapping[str, tuple[ProbeTask, ...]]] = {
    "selectivity": (
        Selectivity(),
        Selectivity(regime="gaps"),
        Selectivity(regime="distractors"),
    ),
    "icll": (InContextLanguage(),),
}
"""Tasks that are trained if they are asked for: word -> its regimes."""

PLANS: Final[Mapping[Budget, Plan]] = {
    "rehearsal": Plan(effort=Effort(steps=10, scored=64), seeds=1, easier=False),
    "standard": Plan(),
    "thorough": Plan(
        tasks=(AssociativeRecall(length=24), StateTracking(length=32), LongGap(length=64)),
        effort=Effort(width=64, steps=3000, lr=3e-3),
        seeds=5,
    ),
}
