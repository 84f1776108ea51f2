r"""Linear state-space layer (LSSL), diagonal: each channel passes through K damped oscillators.

.. math::
    \dot s_k = \lambda_k s_k + u, \quad y = 2\,\mathrm{Re} \sum_k C_k s_k + D u, \quad
    \lambda_k = -e^{\alpha_k} + i \omega_k

sampled with steps of dt by the bilinear rule,
:math:`\bar A = (1 + \tfrac{dt}{2} \lambda) / (1 - \tfrac{dt}{2} \lambda)` and
:math:`\bar B = dt / (1 - \tfrac{dt}{2} \lambda)`. Units (a Linear and relu) behind the channels mix them.

A stream carries s, as two real numbers for each oscillator. A whole sequence is a convolution with the kernel
:math:`2\,\mathrm{Re} \sum_k C_k \bar B_k \bar A_k^i`, by FFT in training and as a convolution in a file: no loop over
time. dt is continuous, so a layer runs at another sampling rate if dt is scaled (`rate_scale`).

Source: LSSL, arXiv 2110.13985, sections 2 and 3; diagonal, from :math:`\lambda_k = -1/2 + i \pi k` on: S4D-Lin, arXiv
2206.11893, section 4.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.converted.layer import SequenceLayer
from compressor.nn.converted.starts import start_channels, start_units
from compressor.nn.record import LayerRecord, Size
from compressor.nn.recurrent.compact import CompactRecurrent
from compressor.nn.recurrent.layers import is_layer
from compressor.nn.recurrent.stack import RecurrentStack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SHORTEST, _LONGEST_STEP = 0.01, 1.0
"""dt at the start, from slow channels to fast ones: an oscillator fades to 1/e within 2 / dt positions."""


class LsslRecord(LayerRecord):
    """What an `LsslLayer` is built from."""

    input_size: Size
    output_size: Size
    projection: Size
    hidden: Size
    oscillators: Annotated[int, Field(ge=1, le=4096)]
    rate_scale: Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]


class LsslLayer(SequenceLayer):
    """`project` to channels, the oscillators of each, `expand` to relu units, `readout`."""

    label = "state-space layer"
    record_type = LsslRecord

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        projection: int,
        hidden: int,
        oscillators: int,
        rate_scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """With dt spread over the channels, evenly in its logarithm.

        Args:
            input_size: I.
            output_size: O.
            projection: P, channels.
            hidden: Units behind them.
            oscillators: K, of each channel.
            rate_scale: Length of a step in steps of training: 2 for inputs at half the sampling rate.
            device: Where the weights lie.
            dtype: Their type.
        """
        super().__init__()
        where: Any = {"device": device, "dtype": dtype}
        self.rate_scale = rate_scale
        self.project = nn.Linear(input_size, projection, **where)
        steps = torch.linspace(math.log(_SHORTEST), math.log(_LONGEST_STEP), projection)
        self.log_step = nn.Parameter(steps.to(**where))
        self.log_decay = nn.Parameter(torch.full((projection, oscillators), math.log(0.5), **where))
        frequencies = math.pi * torch.arange(oscillators, dtype=torch.float32)
        self.frequency = nn.Parameter(frequencies.to(**where).repeat(projection, 1))
        self.mix = nn.Parameter(torch.randn(2, projection, oscillators, **where) / math.sqrt(oscillators))
        self.skip = nn.Parameter(torch.ones(projection, **where))
        self.expand = nn.Linear(projection, hidden, **where)
        self.readout = nn.Linear(hidden, output_size, **where)

    def record(self) -> dict[str, Any]:
        """See `RecordedLayer`."""
        return LsslRecord(
            input_size=self.input_size,
            output_size=self.output_size,
            projection=self.project.out_features,
            hidden=self.readout.in_features,
            oscillators=self.frequency.shape[1],
            rate_scale=self.rate_scale,
        ).model_dump()

    @classmethod
    def usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        sizes = {"input_size": width, "output_size": width, "projection": max(1, width // 2), "hidden": width}
        return {**sizes, "oscillators": 4, "rate_scale": 1.0}

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        return f"{record['oscillators']} oscillators a channel"

    @property
    def memory(self) -> None:
        """See `SequenceLayer`."""
        return

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`: by FFT, or as a convolution while a model is traced or exported."""
        channels = self.project(x).transpose(1, 2)  # (B, P, T)
        tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        filtered = (self.by_convolution if tracing or not torch.is_grad_enabled() else self.by_fft)(channels)
        return self._units(filtered.transpose(1, 2))

    def by_fft(self, channels: Tensor) -> Tensor:
        """What the oscillators make of channels (B, P, T), by FFT in O(T log T)."""
        length = channels.shape[-1]
        spectrum = torch.fft.rfft(channels, 2 * length) * torch.fft.rfft(self.kernel(length), 2 * length)
        filtered: Tensor = torch.fft.irfft(spectrum, 2 * length)[..., :length]
        return filtered

    def by_convolution(self, channels: Tensor) -> Tensor:
        """The same as a depthwise convolution."""
        length = channels.shape[-1]
        weight = self.kernel(length).flip(1)[:, None, :, None]  # (P, 1, T, 1), the oldest first
        padded = nn.functional.pad(channels.unsqueeze(-1), (0, 0, length - 1, 0))
        return nn.functional.conv2d(padded, weight, groups=channels.shape[1]).squeeze(-1)

    def kernel(self, length: int) -> Tensor:
        """The answer to a pulse (P, T), D included."""
        (size, angle), (b_real, b_imaginary) = self._polar(), self._entering()
        c_real, c_imaginary = self.mix.unbind(0)
        real = c_real * b_real - c_imaginary * b_imaginary  # C times B
        imaginary = c_real * b_imaginary + c_imaginary * b_real
        ages = torch.arange(length, dtype=size.dtype, device=size.device)[:, None, None]  # (T, 1, 1)
        waves = torch.exp(ages * size) * (real * torch.cos(ages * angle) - imaginary * torch.sin(ages * angle))
        answer = 2.0 * waves.sum(-1).T  # (P, T)
        pulse = (ages[:, 0, 0] == 0).to(answer.dtype)
        return answer + self.skip[:, None] * pulse

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Real and imaginary parts of s, (1, P, K) each."""
        zeros = self.mix.new_zeros(1, *self.frequency.shape)
        return [("real", zeros), ("imaginary", zeros)]

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`."""
        channels = self.project(x)  # (B, n, P)
        (size, angle), (b_real, b_imaginary) = self._polar(), self._entering()
        a_real, a_imaginary = torch.exp(size) * torch.cos(angle), torch.exp(size) * torch.sin(angle)
        c_real, c_imaginary = self.mix.unbind(0)
        real, imaginary = states
        outputs = []
        for position in range(x.shape[1]):
            u = channels[:, position].unsqueeze(-1)  # (B, P, 1)
            real, imaginary = (
                a_real * real - a_imaginary * imaginary + b_real * u,
                a_imaginary * real + a_real * imaginary + b_imaginary * u,
            )
            answer = 2.0 * (c_real * real - c_imaginary * imaginary).sum(-1)
            outputs.append(answer + self.skip * channels[:, position])
        return self._units(torch.stack(outputs, 1)), [real, imaginary]

    def _units(self, channels: Tensor) -> Tensor:
        return torch.relu(self.expand(channels))

    def _half_step(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of dt / 2 times lambda, (P, K) each."""
        half = 0.5 * self.rate_scale * torch.exp(self.log_step)[:, None]
        return -half * torch.exp(self.log_decay), half * self.frequency

    def _polar(self) -> tuple[Tensor, Tensor]:
        """Logarithm of the magnitude and angle of A, (P, K) each."""
        real, imaginary = self._half_step()
        above, below = (1.0 + real).square() + imaginary.square(), (1.0 - real).square() + imaginary.square()
        angle = torch.atan2(2.0 * imaginary, 1.0 - real.square() - imaginary.square())
        return 0.5 * torch.log(above / below), angle

    def _entering(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of B, (P, K) each."""
        real, imaginary = self._half_step()
        step = self.rate_scale * torch.exp(self.log_step)[:, None]
        below = (1.0 - real).square() + imaginary.square()
        return step * (1.0 - real) / below, step * imaginary / below

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Channels along the directions that drive the old layer, each repeated with slower and slower oscillators."""
        spread = start_channels(self.project, x, drive)
        start_units(self.expand, generator)
        channels = self.project.out_features
        turns = torch.arange(channels, dtype=torch.float64) // spread
        share = turns / max(1.0, float(turns.max()))  # 0 for fast channels, 1 for slow ones
        with torch.no_grad():
            self.log_step.copy_(math.log(_LONGEST_STEP) + share * math.log(_SHORTEST / _LONGEST_STEP))
            mix = torch.randn(self.mix.shape, generator=generator, dtype=torch.float64)
            self.mix.copy_(mix / math.sqrt(self.frequency.shape[1]))

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"oscillators={self.frequency.shape[1]}, rate_scale={self.rate_scale:g}"


def set_rate_scale(model: nn.Module, scale: float) -> int:
    """Let every state-space layer of a model take inputs at another sampling rate, in place.

    Args:
        model: With layers of `convert` to `lssl`.
        scale: Length of a step in steps of training: 2 at half the sampling rate.

    Returns:
        How many layers were set.

    Raises:
        UsageError: The scale is not positive, the model has no such layer, or it has recurrent layers of other kinds,
            whose steps have no length.
    """
    layers = [module for module in model.modules() if isinstance(module, LsslLayer)]
    if not scale > 0 or not math.isfinite(scale):
        raise UsageError(f"a rate scale of {scale}", hint="1 is the rate of training, 2 half of it")
    if not layers:
        raise UsageError("the model has no state-space layer", hint="convert recurrent layers with `to: lssl` first")
    others = [name for name, module in model.named_modules() if _counts_positions(module)]
    if others:
        listed = ", ".join(f"`{name}`" for name in others)
        raise UsageError(
            f"the model has recurrent layers that know no length of a step: {listed}",
            hint="convert them with `to: lssl` too, or train at the new sampling rate",
        )
    for layer in layers:
        layer.rate_scale = scale
    return len(layers)


def _counts_positions(module: nn.Module) -> bool:
    """Whether a layer carries something from position to position, whatever time lies between them."""
    if isinstance(module, SequenceLayer):
        return not isinstance(module, LsslLayer)
    return is_layer(module) or isinstance(module, (CompactRecurrent, RecurrentStack, nn.RNNCellBase))
