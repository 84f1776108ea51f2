"""The retraining of a search: whether and how it is done, how long it may be, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from compressor.studies.search.clock import RETRAIN_SHARE
from compressor.studies.search.knobs import Knob, Point, number
from compressor.studies.search.parts import BITS

if TYPE_CHECKING:
    from compressor.studies.search.goals import Goals
    from compressor.studies.search.study_facts import Decisions
    from compressor.studies.search.subject import Subject

ROUNDED_IN_TRAINING: Final = "quantize"
"""The knob of rounding as a part of the retraining."""
RETRAINED: Final = "retrain"
"""The knob of whether what a removal left is trained."""
LEARNING_RATE: Final = "lr"
"""The knob of a retraining's highest rate."""
DISTILLED: Final = "distill"
"""The knob of the original's share in what is learned."""
_EPOCHS: Final = 40
"""Of the longest retraining if only the number of trials is limited."""
_FEWEST: Final = 16
"""Batches of the shortest retraining."""
_MOST_COUNTED: Final = 2000
"""Batches that are counted to know how many an epoch has."""


@dataclass(frozen=True)
class Retraining:
    """Training of what is left, taught by the original."""

    least: int
    """Fewest batches."""
    most: int
    epoch: int
    """Batches in an epoch."""
    loss: str
    """Distance of the outputs in distillation."""
    weights: tuple[str, ...]
    """Shares of distillation in the loss; 1 alone if there are no labels."""
    rounds: tuple[str, ...] = ()
    """Precisions in whose few bits weights may be trained: `int4`, `mixed`. 8 bits cost too little for that."""

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """Length, learning rate, how much the original teaches, and whether weights are rounded meanwhile."""
        return (
            Knob("batches", self.least, self.most, step=1, log=True),
            Knob(LEARNING_RATE, 1e-4, 1e-2, log=True),
            *((Knob(DISTILLED, words=self.weights),) if len(self.weights) > 1 else ()),
            *((Knob(ROUNDED_IN_TRAINING, words=("no", "yes")),) if self.rounds else ()),
        )

    def step(self, point: Point, part: float) -> dict[str, Any]:
        """The `retrain` step, or one of a part of its length."""
        batches = max(1, round(number(point, "batches", self.least) * part))
        epochs = max(1, round(batches / self.epoch))
        return {
            "method": "retrain",
            "epochs": epochs,
            **({"max_batches": batches} if batches < self.epoch else {}),
            "lr": float(f"{number(point, LEARNING_RATE, 1e-3):.2e}"),
            "schedule": "cosine",
            "warmup": 0.05,
            "distill": True,
            "distill_loss": self.loss,
            "distill_weight": float(point.get(DISTILLED, self.weights[0])),
            **self._rounding(point),
        }

    def _rounding(self, point: Point) -> dict[str, Any]:
        if not self.quantizes(point):
            return {}
        word = str(point["precision"])
        return {"quantize": word, "learn_steps": True, **({BITS: number(point, BITS)} if word == "mixed" else {})}

    def quantizes(self, point: Point) -> bool:
        """Whether a point's weights are rounded, as its file has them, while they are trained."""
        return point.get("precision") in self.rounds and point[ROUNDED_IN_TRAINING] == "yes"

    @property
    def described(self) -> str:
        """For a reader."""
        words = " and ".join(self.rounds)
        rounded = f"; with {words} also in the bits of the file" if words else ""
        return f"retraining of {self.least} to {self.most} batches, or none{rounded}"


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
