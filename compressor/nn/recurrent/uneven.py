"""PyTorch's recurrent layers with a hidden size of its own for every layer and direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.gates import Mode
from compressor.nn.factory import factory_options
from compressor.nn.record import LayerRecord, Probability, Size, allocate
from compressor.nn.recurrent.compact import CompactOptions, CompactRecurrent, PerPart, is_batch, structure_options
from compressor.nn.recurrent.cutting import PartKey, complete_masks, copy_part, mask_of, refuse_projections
from compressor.nn.recurrent.layers import is_layer, part_weights
from compressor.nn.recurrent.packed import Steps, backward, features, reversing_order, with_features
from compressor.nn.recurrent.states import stack_states

if TYPE_CHECKING:
    from compressor.nn.recurrent.cells import RecurrentLayer

Initial = Tensor | Sequence[Tensor]
"""h_0 or c_0: (L * D, B, H) if all sizes are equal, else one (B, H_i) for each layer and direction."""


class UnevenRecord(LayerRecord):
    """What an `UnevenRecurrent` is built from."""

    mode: Mode
    input_size: Size
    hidden_sizes: PerPart[Size]
    bias: bool
    batch_first: bool
    dropout: Probability


class UnevenRecurrent(CompactRecurrent):
    """A recurrent layer as PyTorch's, called in the same way, whose parts have different hidden sizes.

    Layer l in direction d is a one-layer, one-direction module of PyTorch's, `part(l, d)`: its weights are called
    `layers.0.weight_ih_l0`, and `reverse_layers.0.weight_ih_l0` for the backward direction, which runs over the
    sequence reversed in time. All sizes are read off these parts, so that they may be cut afterwards.

    If all hidden sizes are equal, `h_n` and `c_n` are tensors (L * D, B, H) as in PyTorch, else `States`.
    """

    record_type = UnevenRecord

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_sizes: Sequence[Sequence[int]],
        **options: Unpack[CompactOptions],
    ) -> None:
        """Build the parts, with PyTorch's initial weights.

        Args:
            mode: See `CompactRecurrent`.
            input_size: Number of input features.
            hidden_sizes: For each layer, its size forward and, if it is bidirectional, backward.
            **options: See `CompactOptions`.
        """
        super().__init__(mode, options)
        width = input_size
        for sizes in hidden_sizes:
            for parts, size in zip((self.layers, self.reverse_layers), sizes, strict=False):
                parts.append(self.cell.layer(width, size, bias=self.bias, **factory_options(options)))
            width = sum(sizes)

    @classmethod
    def from_module(
        cls,
        module: RecurrentLayer | UnevenRecurrent,
        kept: Mapping[PartKey, Tensor] | None = None,
        *,
        inputs: Tensor | None = None,
    ) -> UnevenRecurrent:
        """The units of `module` that are kept, with their weights; the module itself is left as it is.

        Args:
            module: A recurrent layer of PyTorch without `proj_size`, or one of this class.
            kept: (layer, direction) -> mask (H,), True = kept; all units of a part without a mask.
            inputs: Mask of the input features that are kept; all by default.

        Raises:
            SurgeryError: The module has projections, or a mask does not fit or keeps nothing.
        """
        refuse_projections(module)
        masks = complete_masks(module, kept or {})
        columns = mask_of("the inputs", inputs, module.input_size)
        first = part_weights(module, 0, 0)["weight_ih"]
        smaller = cls(
            module.mode,
            int(columns.sum()),
            [[int(mask.sum()) for mask in layer] for layer in masks],
            **structure_options(module, first),
        )
        allocate(smaller, first.device)
        for layer, layer_masks in enumerate(masks):
            for direction, mask in enumerate(layer_masks):
                source, target = (part_weights(part, layer, direction) for part in (module, smaller))
                copy_part(smaller.cell, source, target, mask, columns)
            columns = torch.cat(layer_masks)
        return smaller.train(module.training)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return UnevenRecord(
            mode=self.cell.gates.mode,
            input_size=self.input_size,
            hidden_sizes=self.hidden_sizes,
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
        ).model_dump()

    @property
    def input_size(self) -> int:  # type: ignore[override]
        """Number of input features."""
        return self.part(0, 0).input_size

    @property
    def hidden_sizes(self) -> list[list[int]]:
        """For each layer, its size forward and, if it is bidirectional, backward."""
        directions = 2 if self.bidirectional else 1
        return [
            [self.part(layer, direction).hidden_size for direction in range(directions)]
            for layer in range(self.num_layers)
        ]

    @property
    def hidden_size(self) -> int | tuple[int, ...]:
        """The one hidden size, or if they differ all of them, in the order of `h_n`."""
        sizes = tuple(size for layer in self.hidden_sizes for size in layer)
        return sizes[0] if len(set(sizes)) == 1 else sizes

    def part(self, layer: int, direction: int) -> RecurrentLayer:
        """The one-layer, one-direction module that computes a layer in a direction."""
        part = super().part(layer, direction)
        assert is_layer(part)
        return part

    def flatten_parameters(self) -> None:
        """Lay the weights out as cuDNN wants them."""
        for parts in (self.layers, self.reverse_layers):
            for part in parts:
                part.flatten_parameters()  # type: ignore[operator]

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 the layer's name for it in PyTorch
        """Run over a sequence.

        Args:
            input: (T, B, F), (B, T, F) with `batch_first`, unbatched (T, F), or a `PackedSequence`.
            hx: Initial states: h_0, and (h_0, c_0) for an LSTM, each as `Initial`; without the axis B if the input is
                unbatched. Zeros by default.

        Returns:
            The outputs of the last layer, the directions side by side, in the form of `input`; and h_n, or (h_n, c_n).
        """
        if isinstance(input, PackedSequence):
            output, last = self._run(input, self._initial_states(hx, batched=True))
            return output, self._last_states(last, batched=True)
        batched = is_batch(input)
        swap = batched and self.batch_first
        sequence = input.transpose(0, 1) if swap else input if batched else input.unsqueeze(1)  # (T, B, F)
        result, last = self._run(sequence, self._initial_states(hx, batched=batched))
        output = features(result)  # (T, B, H)
        output = output.transpose(0, 1) if swap else output if batched else output.squeeze(1)
        return output, self._last_states(last, batched=batched)

    def _run(self, sequence: Steps, initial: list[list[Tensor]]) -> tuple[Steps, list[list[Tensor]]]:
        """All layers: the output and, for h and c, the last states (1, B, H_i) of every part."""
        order = reversing_order(sequence) if isinstance(sequence, PackedSequence) and self.bidirectional else None
        last: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            if layer:
                data = nn.functional.dropout(features(sequence), self.dropout, self.training)
                sequence = with_features(sequence, data)
            outputs = []
            for direction in range(2 if self.bidirectional else 1):
                states = [of_one_kind[len(last)] for of_one_kind in initial]
                turned = backward(sequence, order) if direction else sequence
                output, new = self.part(layer, direction)(turned, self.cell.pack(states) if states else None)
                outputs.append(features(backward(output, order) if direction else output))
                last.append(self.cell.unpack(new))
            sequence = with_features(sequence, torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0])
        return sequence, [list(of_one_kind) for of_one_kind in zip(*last, strict=True)]

    def _initial_states(self, hx: Any, *, batched: bool) -> list[list[Tensor]]:
        """For every kind of state, the initial ones (1, B, H_i) of every part; empty if none are given."""
        if hx is None:
            return []
        kinds = self.cell.unpack(hx)
        if len(kinds) != len(self.cell.states):
            raise ValueError(f"the initial state of an LSTM is a pair (h_0, c_0), not {len(kinds)} tensors")
        return [self._initial_parts(states, batched) for states in kinds]

    def _initial_parts(self, states: Initial, batched: bool) -> list[Tensor]:
        sizes = [size for layer in self.hidden_sizes for size in layer]
        if isinstance(states, Tensor) and len(set(sizes)) > 1:
            raise ValueError(
                f"the initial state is one tensor {tuple(states.shape)}, but layers and directions have different "
                f"sizes {tuple(sizes)}; give a list of tensors, one for each"
            )
        axes = 2 if batched else 1
        parts = list(states.unbind(0)) if isinstance(states, Tensor) else list(states)
        if len(parts) != len(sizes) or any(part.dim() != axes for part in parts):
            raise ValueError(
                f"the initial state has {len(parts)} parts of shapes {[tuple(part.shape) for part in parts]}, but "
                f"{len(sizes)} with {axes} axes are needed, one for each layer and direction"
            )
        return [part.unsqueeze(0) if batched else part[None, None] for part in parts]

    def _last_states(self, last: list[list[Tensor]], *, batched: bool) -> Any:
        return self.cell.pack(
            [stack_states(parts if batched else [part.squeeze(1) for part in parts]) for parts in last]
        )

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.mode}, {self.input_size}, {self.hidden_sizes}, {self.flags()}"
