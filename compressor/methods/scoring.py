"""The scorer that a recipe's word stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

    from compressor.methods.base import Batches, Context
    from compressor.surgery.units.planning import Scorer

UnitScore = Literal[
    "l1", "l2", "lamp", "distance", "activation", "variance", "sensitivity", "taylor", "hessian", "random"
]
UNIT_SCORES: Final[tuple[UnitScore, ...]] = get_args(UnitScore)
"""All of them."""
WITHOUT_DATA: Final[tuple[UnitScore, ...]] = ("l1", "l2", "lamp", "distance", "random")
"""Those that no batches are needed for."""


def unit_scorer(score: UnitScore, context: Context, calibration: Batches) -> Scorer:
    """What a unit is worth; see `compressor.surgery.units.scores` and `gradient_scores`.

    Args:
        score: The word.
        context: Gives the loss and the random numbers.
        calibration: Training batches, for scores that are measured.
    """
    from compressor.surgery.units import gradient_scores, scores

    inputs = [inputs for inputs, _ in calibration]
    generator = context.restarted_generator()
    scorers: dict[UnitScore, Callable[[], Scorer]] = {
        "l1": lambda: scores.magnitude(1),
        "l2": lambda: scores.magnitude(2),
        "lamp": lambda: scores.magnitude(2),  # other layers are compared otherwise, see `choosing.lamp`
        "distance": scores.distance,
        "activation": lambda: scores.activation(inputs),
        "variance": lambda: scores.variance(inputs),
        "sensitivity": lambda: gradient_scores.sensitivity(inputs, generator),
        "taylor": lambda: gradient_scores.taylor(calibration, context.task.loss),
        "hessian": lambda: gradient_scores.hessian(calibration, context.task.loss),
        "random": lambda: scores.random(generator),
    }
    scorer = scorers[score]()
    return scorer if context.scores is None else context.scores.around(scorer, generator, (score, len(calibration)))
