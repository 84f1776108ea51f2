"""Gradient noise in `retrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from compressor.methods.base import Context, Method

if TYPE_CHECKING:
    from compressor.training.trainer import Noise


class Noisy(Method):
    """A method that may add noise to the gradients of a training."""

    noise_eta: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Gradient noise of variance noise_eta / (1 + t)^noise_gamma at optimizer step t, added after clipping
    (arXiv 1511.06807, which used 0.01, 0.3 and 1.0); 0 is off."""

    noise_gamma: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.55
    """How fast the gradient noise fades."""

    @model_validator(mode="after")
    def _options_of_noise_belong_together(self) -> Noisy:
        if not self.noise_eta:
            self.refuse_options("noise_gamma", why="has no effect without a `noise_eta` above 0")
        return self

    def noise(self, context: Context) -> Noise | None:
        """What is added to the gradients on the device; None for nothing."""
        from compressor.training.seeding import device_generator
        from compressor.training.trainer import Noise

        if not self.noise_eta:
            return None
        return Noise(self.noise_eta, self.noise_gamma, device_generator(context.generator, context.device))
