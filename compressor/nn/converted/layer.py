"""What every target of a conversion is: one layer from a sequence to a sequence, whole or a few positions at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

import torch

from compressor.nn.record import RecordedLayer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from compressor.nn.factory import FactoryOptions


def is_traced() -> bool:
    """Whether a model is traced or exported, and only plain operations may be used."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


class SequenceLayer(RecordedLayer, ABC):
    """Maps (B, T, I) to (B, T, O). `project` reads the inputs; the output is `readout` of the features.

    The readout is what least squares solve for when the layer starts from the outputs of another one.
    """

    label: ClassVar[str]
    """What it is, in a report."""
    lookahead: int = 0
    """Later positions that an output depends on."""
    inner_widths: ClassVar[tuple[str, ...]] = ("projection", "hidden")
    """Entries of the record that grow with the width of the layer; `hidden` is what the readout reads."""
    project: nn.Linear
    readout: nn.Linear

    @property
    def input_size(self) -> int:
        """I, the number of input features."""
        return self.project.in_features

    @property
    def output_size(self) -> int:
        """O, the number of output features."""
        return self.readout.out_features

    @property
    @abstractmethod
    def memory(self) -> int | None:
        """Earlier positions that an output can depend on; None if there is no limit."""

    def record(self) -> dict[str, Any]:
        """See `RecordedLayer`."""
        sizes = {"input_size": self.input_size, "output_size": self.output_size, "hidden": self.readout.in_features}
        return self.record_type(**sizes, **self.own_fields()).model_dump()

    @abstractmethod
    def own_fields(self) -> dict[str, Any]:
        """What its record has beside `input_size`, `output_size` and `hidden`."""

    @classmethod
    def usual(cls, width: int) -> dict[str, Any]:
        """The record of a layer of the usual structure with `width` inputs and outputs."""
        return {"input_size": width, "output_size": width, "hidden": width, **cls.own_usual(width)}

    @classmethod
    @abstractmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """What is usual of `own_fields`."""

    @classmethod
    @abstractmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """The structure that a record describes in a few words, sizes left out."""

    @classmethod
    def from_fields(
        cls,
        fields: Mapping[str, Any],
        **factory: Unpack[FactoryOptions],
    ) -> Self:
        """A layer with initial weights, from what its record holds."""
        return cls(**fields, **factory)

    @classmethod
    def in_proportion(cls, record: Mapping[str, Any], width: int) -> dict[str, Any]:
        """The record of the same structure with `width` inputs and outputs, its other widths in proportion."""
        scaled = {name: max(1, round(record[name] * width / record["output_size"])) for name in cls.inner_widths}
        return {**record, **scaled, "input_size": width, "output_size": width}

    @abstractmethod
    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """What the readout reads, of a whole sequence.

        Args:
            x: (B, T, I).
            valid: (B, T, 1), 0 past the end of a sequence and 1 elsewhere; None if all sequences have T positions.

        Returns:
            (B, T, N).
        """

    @abstractmethod
    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Name and value (1, ...) before the first position, for every state that a stream carries."""

    @abstractmethod
    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The features at the next positions, and the new states.

        Args:
            x: (B, n, I), n >= 1.
            states: As `initial_states`, (B, ...) each.

        Returns:
            (B, n, N), and states of the same shapes.
        """

    @abstractmethod
    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Give everything but the readout the values from which training starts.

        Args:
            x: Inputs (N, I), a sample of what the layer is given.
            drive: (G, I), how the layer that is replaced weighs its inputs.
            generator: On the CPU.
        """

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """A whole sequence (B, T, I) to (B, T, O); see `features`."""
        output: Tensor = self.readout(self.features(x, valid))
        return output

    def step(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The next positions (B, n, I) to (B, n, O), and the new states."""
        features, new = self.step_features(x, states)
        return self.readout(features), new


def in_turn(layers: Iterable[SequenceLayer], x: Tensor, valid: Tensor | None = None) -> Tensor:
    """What the last of the layers gives of a whole sequence (B, T, I), each reading what the one before gives."""
    for layer in layers:
        x = layer(x, valid)
    return x
