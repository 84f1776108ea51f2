"""What the stages of a run share."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compressor.measure import accuracy
from compressor.methods.base import NO_HELPERS
from compressor.report import Stage
from compressor.task.forwards import TorchForward

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from compressor.methods.base import Helpers
    from compressor.pipeline.folder import RunFolder
    from compressor.pipeline.journal import Journal
    from compressor.pipeline.kept_originals import KeptOriginals
    from compressor.progress import Progress
    from compressor.recipe.model import Recipe
    from compressor.report import Score
    from compressor.task.guard import GuardedTask
    from compressor.task.samples import Sample


@dataclass
class Setting:
    """One run: what it was given, and the notes that its stages leave for the report."""

    recipe: Recipe
    task: GuardedTask
    folder: RunFolder
    device: torch.device
    threads: int
    quick: bool
    probes: bool
    jobs: int
    progress: Progress
    command: tuple[str, ...] = ()
    team: Helpers = NO_HELPERS
    """Processes that share the work of trainings."""
    notes: list[str] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    """What has been done so far, and the time that it took."""
    originals: KeptOriginals | None = None
    """Exported originals of earlier runs; None if they are not wanted."""
    real: tuple[Sample, ...] = ()
    """Inputs of the task's own data; known once it was tried out."""

    @property
    def journal(self) -> Journal:
        """What is finished, and goes into the journal as it is."""
        return self.folder.journal

    def score(self, model: nn.Module) -> Score:
        """The task's metric of a model."""
        return accuracy.score(self.task, TorchForward(model, self.device), seed=self.recipe.seed)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of what is done inside, or was before a kill; stages follow each other and do not nest."""
        wall, processor, before = time.perf_counter(), time.process_time(), self.journal.reused
        yield
        reused = [after - earlier for after, earlier in zip(self.journal.reused, before, strict=True)]
        self.stages.append(
            Stage(
                name=name,
                seconds=time.perf_counter() - wall + reused[0],
                processor_seconds=time.process_time() - processor + reused[1],
            )
        )
