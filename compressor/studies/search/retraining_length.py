"""How long a retraining of a search may be, and what it learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from compressor.studies.search.clock import RETRAIN_SHARE
from compressor.studies.search.retraining import Retraining

if TYPE_CHECKING:
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.study_facts import Decisions
    from compressor.studies.search.subject import Subject

_EPOCHS: Final = 40
"""Of the longest retraining if only the number of trials is limited."""
_FEWEST: Final = 16
"""Batches of the shortest retraining."""
_MOST_COUNTED: Final = 2000
"""Batches that are counted to know how many an epoch has."""


def retraining_of(
    goals: Goals, subject: Subject, left_out: list[str], decided: Decisions, rounds: tuple[str, ...]
) -> Retraining | None:
    """How long retraining may be, and what it learns from; `rounds` are the precisions that it may learn in."""
    if not any(parameter.requires_grad for parameter in subject.model.parameters()):
        left_out.append("retraining: no parameter of the model takes a gradient")
        return None
    generator = torch.Generator().manual_seed(subject.seed)
    first, count = None, 0
    for inputs, target in subject.task.batches(generator):
        first = first or (inputs, target)
        count += 1
        if count >= _MOST_COUNTED:
            break
    if first is None:
        left_out.append("retraining: the task gives no batches")
        return None
    if "batches" not in decided.numbers:
        decided.numbers["batches"] = _longest(goals, subject, first[0], count)
    most = decided.numbers["batches"]
    loss, labelled = _loss(subject, first)
    weights = ("0.5", "0.9", "1.0") if labelled else ("1.0",)
    return Retraining(min(_FEWEST, most), most, count, loss, weights, rounds)


def _longest(goals: Goals, subject: Subject, inputs: tuple[torch.Tensor, ...], epoch: int) -> int:
    """Batches of the longest retraining: some epochs, or what a share of the time limit lets through."""
    if goals.time is None:
        return max(2 * _FEWEST, _EPOCHS * epoch)
    started = subject.now()
    for _ in range(3):
        _step_like(subject, inputs)
    seconds = (subject.now() - started) / 3
    affordable = int(RETRAIN_SHARE * goals.time / max(seconds, 1e-6))
    return max(2 * _FEWEST, min(affordable, 2 * _EPOCHS * epoch))


def _step_like(subject: Subject, inputs: tuple[torch.Tensor, ...]) -> None:
    """About the work of one batch of retraining: the teacher's pass, the pupil's, and its gradients."""
    placed = tuple(part.to(subject.device) for part in inputs)
    with torch.no_grad():
        subject.model(*placed)
    outputs = subject.model(*placed)
    _first(outputs).float().square().mean().backward()
    subject.model.zero_grad(set_to_none=True)


def _loss(subject: Subject, batch: tuple[tuple[torch.Tensor, ...], object]) -> tuple[str, bool]:
    """The distance for distillation, and whether the task has labels.

    Whole numbers as targets: classes, so the outputs are logits. Rows of length 1: embeddings. Numbers otherwise.
    """
    inputs, target = batch
    with torch.no_grad():
        outputs = subject.model(*(part.to(subject.device) for part in inputs))
    output = _first(outputs).float()
    labelled = target is not None
    targets = [part for part in (target if isinstance(target, (tuple, list)) else [target]) if torch.is_tensor(part)]
    if any(not part.is_floating_point() for part in targets) and output.dim() > 1 and output.shape[-1] > 1:
        return "kl", labelled
    lengths = output.norm(dim=-1)
    return ("cosine" if bool((lengths - 1).abs().max() < 1e-3) else "mse"), labelled


def _first(outputs: object) -> torch.Tensor:
    return outputs if isinstance(outputs, torch.Tensor) else outputs[0]  # type: ignore[index]
