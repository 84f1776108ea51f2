"""Rounding as part of `retrain`: which matrices, to how many bits, and what the training starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from compressor.methods.base import Context, Method

if TYPE_CHECKING:
    from torch import nn

    from compressor.training.epoch_batches import EpochBatches
    from compressor.training.rounding import Rounding


class Rounded(Method):
    """A method that may train weights as they are rounded, and leave them rounded."""

    quantize: Literal["int8", "int4", "mixed"] | None = None
    """Make rounding part of training: matrices of recurrent layers, Linear and Embedding are rounded in the forward
    pass, their gradients pass straight through (arXiv 1308.3432), and the step ends with rounded weights. For an export
    with the same `precision`, if rounding alone costs too much. Embeddings stay in 8 bits. `mixed` gives each of these
    matrices 2, 3, 4, 5, 6, 8 or 16 (float16) bits within the average `bits`, as the export does, by what each costs the
    outputs alone; an export with `precision: mixed` finds the same bits and integers."""

    bits: Annotated[float, Field(ge=2.0, le=16.0, allow_inf_nan=False)] | None = None
    """For `quantize: mixed`: bits of a weight on average over all matrices, tables and convolutions but `keep_float`,
    scales included; convolutions get theirs in the export."""

    learn_steps: bool = False
    """With `quantize`: learn the steps of the integers, and with them the clipping, together with the weights (LSQ,
    arXiv 1902.08153)."""

    start: Literal["second_order", "nearest"] = "second_order"
    """With `learn_steps`: train from the second-order rounding on, or from rounding to the nearest with the clipping
    that has the least error of the weights."""

    keep_float: tuple[str, ...] = ()
    """Globs of parameters (`lstm.weight_ih_l0`) that `quantize` leaves exact, as the export's `keep_float` does by the
    names of the file."""

    @model_validator(mode="after")
    def _options_of_rounding_belong_together(self) -> Rounded:
        if self.quantize is None:
            only_rounded = ("keep_float", "learn_steps", "bits", "start")
            self.refuse_options(*only_rounded, why="has no effect without `quantize: int8`")
        if not self.learn_steps:
            self.refuse_options("start", why="has no effect without `learn_steps: true`")
        if (self.quantize == "mixed") != (self.bits is not None):
            raise ValueError("`quantize: mixed` and `bits`, the average of a weight, go together")
        if self.quantize == "mixed" and not self.learn_steps:
            raise ValueError("`quantize: mixed` needs `learn_steps: true`")
        return self

    @property
    def rounding_block(self) -> int | None:
        """One number for all."""
        if self.quantize not in ("int4", "mixed"):
            return None
        from compressor.nn.integers import BLOCK

        return BLOCK

    def check_rounding(self, model: nn.Module) -> None:
        """Refuse a model without a matrix to round, and globs that fit none."""
        if self.quantize is not None:
            from compressor.training.rounding import Rounding

            Rounding(model, self.quantize, self.keep_float)

    def rounding(self, model: nn.Module, batches: EpochBatches, context: Context) -> Rounding | None:
        """What rounds the matrices in training; None without `quantize`."""
        from compressor.methods.retraining.rounding_start import BATCHES, learned_rounding
        from compressor.training.rounding import Rounding

        if self.quantize is None or not self.learn_steps:
            return None if self.quantize is None else Rounding(model, self.quantize, self.keep_float)
        from_second_order = self.start == "second_order"
        heard: list[Any] = []
        if from_second_order or self.bits is not None:
            context.progress.say("rounding the weights that the training starts from")
            heard = batches.first(BATCHES) or context.first_batches(BATCHES, hint="set `start: nearest`")
        return learned_rounding(
            model,
            self.quantize,
            self.keep_float,
            bits=self.bits,
            batches=[tuple(inputs) for inputs, _ in heard],
            from_second_order=from_second_order,
        )

    def finish_rounding(self, rounding: Rounding | None) -> list[str]:
        """Leave the matrices rounded; gives notes."""
        if rounding is None:
            return []
        rounding.finish()
        notes = [f"{len(rounding.parameters)} matrices trained and left rounded to {self.quantize}"]
        if self.quantize == "mixed":
            notes.append("bits: " + ", ".join(f"{name} {bits}" for name, (_, bits) in rounding.parameters.items()))
        return notes
