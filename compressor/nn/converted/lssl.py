r"""Linear state-space layer (LSSL): each channel passes through a linear system of its own, units mix the channels.

.. math:: \dot s = A s + B u, \quad y = C s + D u

sampled with steps of dt by the bilinear rule. A is diagonal (`diagonal_system`: damped oscillators) or dense
(`dense_system`: from HiPPO-LegS on). Units (a Linear and relu) behind the channels mix them.

A stream carries s. A whole sequence is a convolution with the kernel :math:`C \bar A^i \bar B`, by FFT in training and
as a convolution in a file: no loop over time. dt is continuous, so a layer runs at another sampling rate if dt is
scaled (`rate_scale`).

Source: LSSL, arXiv 2110.13985, sections 2 and 3.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from compressor.errors import UsageError
from compressor.nn.converted.cached_system import CachedSystem
from compressor.nn.converted.convolved import by_convolution, by_fft
from compressor.nn.converted.dense_system import DenseSystem
from compressor.nn.converted.diagonal_system import DiagonalSystem
from compressor.nn.converted.layer import SequenceLayer, is_traced
from compressor.nn.converted.starts import start_channels, start_units
from compressor.nn.converted.state_system import LONGEST_STEP, SHORTEST_STEP
from compressor.nn.memory_cache import NO_CACHE, CacheRecord
from compressor.nn.memory_cache import described as described_cache
from compressor.nn.memory_cache import fields as cache_fields
from compressor.nn.record import Size
from compressor.nn.recurrent.compact import CompactRecurrent
from compressor.nn.recurrent.layers import is_layer
from compressor.nn.recurrent.stack import RecurrentStack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.factory import FactoryOptions


class LsslRecord(CacheRecord):
    """What an `LsslLayer` is built from."""

    input_size: Size
    output_size: Size
    projection: Size
    hidden: Size
    oscillators: Annotated[int, Field(ge=1, le=4096)] | None = None
    state_size: Annotated[int, Field(ge=2, le=256)] | None = None
    rate_scale: Annotated[float, Field(gt=0.0, le=1e6, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _one_system(self) -> LsslRecord:
        if (self.oscillators is None) == (self.state_size is None):
            raise ValueError("either `oscillators` or `state_size` is a number, the other one null")
        return self


class LsslLayer(SequenceLayer):
    """`project` to channels, the `system` of each, `expand` to relu units, `readout`."""

    label = "state-space layer"
    record_type = LsslRecord

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        projection: int,
        hidden: int,
        oscillators: int | None = None,
        state_size: int | None = None,
        rate_scale: float = 1.0,
        memory_cache: int = 0,
        cache_segment: int = 16,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """With dt spread over the channels, evenly in its logarithm.

        Args:
            input_size: I.
            output_size: O.
            projection: P, channels.
            hidden: Units behind them.
            oscillators: K, of each channel, if A is diagonal.
            state_size: N, of each channel, if A is dense.
            rate_scale: Length of a step in steps of training: 2 for inputs at half the sampling rate.
            memory_cache: Slots of a `CachedSystem`; 0 for none.
            cache_segment: Positions of each of them.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.rate_scale = rate_scale
        self.oscillators, self.state_size = oscillators, state_size
        self.project = nn.Linear(input_size, projection, **factory)
        self.system: DiagonalSystem | DenseSystem
        if oscillators is not None:
            self.system = DiagonalSystem(projection, oscillators, factory)
        else:
            assert state_size is not None
            self.system = DenseSystem(projection, state_size, factory)
        self.cache: CachedSystem | None = None
        if memory_cache:
            self.cache = CachedSystem(input_size, 1, memory_cache, cache_segment, factory)
        self.expand = nn.Linear(projection, hidden, **factory)
        self.readout = nn.Linear(hidden, output_size, **factory)

    def own_fields(self) -> dict[str, Any]:
        """See `SequenceLayer`."""
        sizes = {"projection": self.project.out_features, "rate_scale": self.rate_scale}
        state = {"oscillators": self.oscillators, "state_size": self.state_size}
        return {**sizes, **state, **cache_fields(self.cache)}

    @classmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        sizes = {"projection": max(1, width // 2), "oscillators": 4, "state_size": None, "rate_scale": 1.0}
        return {**sizes, **NO_CACHE}

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        dense = record.get("state_size")
        state = f"a dense state of {dense} numbers" if dense else f"{record['oscillators']} oscillators"
        return f"{state} a channel{described_cache(record)}"

    @property
    def memory(self) -> None:
        """See `SequenceLayer`."""
        return

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`: by FFT, or as a convolution while a model is traced or exported."""
        channels = self.project(x).transpose(1, 2)  # (B, P, T)
        if self.cache is not None:
            return self._units(self._cached(self.cache, x, channels).transpose(1, 2))
        form = by_convolution if is_traced() or not torch.is_grad_enabled() else by_fft
        filtered = form(channels.unsqueeze(-1), self.kernel(x.shape[1])).squeeze(-1)
        return self._units(filtered.transpose(1, 2))

    def _cached(self, cache: CachedSystem, x: Tensor, channels: Tensor) -> Tensor:
        """What systems with a cache make of channels (B, P, T); a convolution for each segment would take long."""
        response = self.system.pulse_response(x.shape[1], self.rate_scale)
        answer = partial(by_convolution if is_traced() else by_fft, kernel=response)
        return cache.whole(x, channels, answer) + self.system.skip[:, None] * channels

    def kernel(self, length: int) -> Tensor:
        """The answer to a pulse (P, T), D included."""
        return self.system.kernel(length, self.rate_scale)

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """The parts of s, (1, P, ...) each; or those of the cache."""
        return self.system.initial_states() if self.cache is None else self.cache.initial_states(self.system)

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`."""
        channels = self.project(x)  # (B, n, P)
        sampled, outputs = self.system.sampled(self.rate_scale), []
        if self.cache is not None:
            filtered, new = self.cache.step(x, channels, states, self.system, sampled)
            return self._units(filtered), new
        for position in range(x.shape[1]):
            u = channels[:, position]
            answer, states = self.system.advance(u, states, sampled)
            outputs.append(answer + self.system.skip * u)
        return self._units(torch.stack(outputs, 1)), list(states)

    def _units(self, channels: Tensor) -> Tensor:
        return torch.relu(self.expand(channels))

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Channels along the directions that drive the old layer, each repeated with slower and slower systems."""
        spread = start_channels(self.project, x, drive)
        start_units(self.expand, generator)
        channels = self.project.out_features
        turns = torch.arange(channels, dtype=torch.float64) // spread
        share = turns / max(1.0, float(turns.max()))  # 0 for fast channels, 1 for slow ones
        with torch.no_grad():
            self.system.log_step.copy_(math.log(LONGEST_STEP) + share * math.log(SHORTEST_STEP / LONGEST_STEP))
        self.system.restart(generator)
        if self.cache is not None:
            self.cache.start(x, generator)

    def extra_repr(self) -> str:
        """The structure in one line."""
        size = f"state_size={self.state_size}" if self.oscillators is None else f"oscillators={self.oscillators}"
        return f"{size}, rate_scale={self.rate_scale:g}"


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
            hint="convert them with `to: lssl` and without `memory_cache`, or train at the new sampling rate",
        )
    for layer in layers:
        layer.rate_scale = scale
    return len(layers)


def _counts_positions(module: nn.Module) -> bool:
    """Whether a layer carries something from position to position, whatever time lies between them."""
    if isinstance(module, SequenceLayer):
        return not isinstance(module, LsslLayer) or module.cache is not None
    return is_layer(module) or isinstance(module, (CompactRecurrent, RecurrentStack, nn.RNNCellBase))
