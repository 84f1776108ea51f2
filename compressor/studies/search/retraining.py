"""The retraining of a search's points: its knobs, and the step of a recipe that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from compressor.studies.search.knobs import Knob, Point, number
from compressor.studies.search.parts import BITS

ROUNDED_IN_TRAINING: Final = "quantize"
"""The knob of rounding as a part of the retraining."""
RETRAINED: Final = "retrain"
"""The knob of whether what a removal left is trained."""
LEARNING_RATE: Final = "lr"
"""The knob of a retraining's highest rate."""
DISTILLED: Final = "distill"
"""The knob of the original's share in what is learned."""


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
