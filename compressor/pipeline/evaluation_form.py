"""How a metric is kept in the journal of a run; without what a state needs, so that an export alone loads no method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressor.measure.accuracy import Examined
from compressor.pipeline.parts import Kept
from compressor.report import Score

if TYPE_CHECKING:
    from compressor.task.contract import Inputs


class EvaluationForm:
    """Of a metric with its scores by sample, and of the inputs of a call of each file."""

    def write(self, value: tuple[Examined, list[Inputs]]) -> Kept:
        """The scores keep their 64 bits."""
        examined, calls = value
        tensors = {f"{index}.{place}": part for index, call in enumerate(calls) for place, part in enumerate(call)}
        if examined.per_sample is not None:
            tensors["scores"] = torch.from_numpy(examined.per_sample)
        if examined.groups is not None:
            tensors["groups"] = torch.from_numpy(examined.groups)
        return Kept([examined.score.model_dump(mode="json"), [len(call) for call in calls]], tensors)

    def read(self, kept: Kept) -> tuple[Examined, list[Inputs]]:
        """The same again."""
        score, counts = kept.facts
        scores, groups = (kept.tensors.get(name) for name in ("scores", "groups"))
        examined = Examined(
            Score.model_validate(score),
            None if scores is None else scores.numpy(),
            None if groups is None else groups.numpy(),
        )
        return examined, [
            tuple(kept.tensors[f"{index}.{place}"] for place in range(count)) for index, count in enumerate(counts)
        ]
