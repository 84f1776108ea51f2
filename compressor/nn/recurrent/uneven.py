"""`nn.RNN`, `nn.GRU` and `nn.LSTM` with a hidden size of its own for every layer and direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import SurgeryError
from compressor.nn.record import LayerRecord, Probability, Size, allocate, parse
from compressor.nn.recurrent.gates import GATES
from compressor.nn.recurrent.states import States

Initial = Tensor | Sequence[Tensor]
"""h_0 or c_0: (L * D, B, H) where all sizes are equal, else one (B, H_i) for each layer and direction."""
Part = tuple[int, int]
"""(layer, direction); direction 0 runs forward in time, 1 backward."""
Steps = Tensor | PackedSequence
"""A batch of sequences: (T, B, F), or packed."""
_MOST_LAYERS = 1024


class UnevenRecord(LayerRecord):
    """What an `UnevenRecurrent` is built from."""

    mode: Literal["RNN_TANH", "RNN_RELU", "GRU", "LSTM"]
    input_size: Size
    hidden_sizes: Annotated[
        list[Annotated[list[Size], Field(min_length=1, max_length=2)]], Field(min_length=1, max_length=_MOST_LAYERS)
    ]
    """Layer by layer, the forward direction first."""
    bias: bool
    batch_first: bool
    dropout: Probability

    @field_validator("hidden_sizes")
    @classmethod
    def _as_many_directions_everywhere(cls, sizes: list[list[int]]) -> list[list[int]]:
        if len({len(layer) for layer in sizes}) > 1:
            raise ValueError("every layer has to have the same number of directions")
        return sizes


class UnevenRecurrent(nn.Module):
    """A recurrent layer as PyTorch's, called in the same way, whose parts have different hidden sizes.

    Layer l in direction d is a one-layer, one-direction `nn.RNN`, `nn.GRU` or `nn.LSTM` of its own, `part(l, d)`: its
    weights are called `layers.0.weight_ih_l0`, and `reverse_layers.0.weight_ih_l0` for the backward direction, which
    runs over the sequence reversed in time. All sizes are read off these parts, so that they may be cut afterwards.

    Where all hidden sizes are equal, `h_n` and `c_n` are tensors (L * D, B, H) as in PyTorch, else `States`.
    """

    proj_size = 0
    """There are no projections."""

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_sizes: Sequence[Sequence[int]],
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the parts, with PyTorch's initial weights.

        Args:
            mode: `RNN_TANH`, `RNN_RELU`, `GRU` or `LSTM`.
            input_size: Number of input features.
            hidden_sizes: For each layer, its size forward and, where it is bidirectional, backward.
            bias: Each part has both biases, or none.
            batch_first: Batches are (B, T, F) instead of (T, B, F).
            dropout: Probability, in training, of dropping an output of any layer but the last.
            device: Where the weights lie.
            dtype: Their type.
        """
        super().__init__()
        self.mode = mode
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = dropout
        self.layers = nn.ModuleList()
        self.reverse_layers = nn.ModuleList()
        features = input_size
        for sizes in hidden_sizes:
            for parts, size in zip((self.layers, self.reverse_layers), sizes, strict=False):
                parts.append(_part(mode, features, size, bias, device, dtype))
            features = sum(sizes)

    @classmethod
    def from_module(
        cls,
        module: nn.RNNBase | UnevenRecurrent,
        kept: Mapping[Part, Tensor] | None = None,
        *,
        inputs: Tensor | None = None,
    ) -> UnevenRecurrent:
        """The units of `module` that are kept, with their weights; the module itself is left as it is.

        Args:
            module: A recurrent layer of PyTorch without `proj_size`, or one of this class.
            kept: (layer, direction) -> mask (H,), True = kept; all units where there is none.
            inputs: Mask of the input features that are kept; all by default.

        Raises:
            SurgeryError: The module has projections, or a mask does not fit or keeps nothing.
        """
        _refuse_projections(module)
        masks = _complete_masks(module, kept or {})
        columns = _mask("the inputs", inputs, module.input_size)
        first = part_weights(module, 0, 0).weight_ih
        smaller = cls(
            module.mode,
            int(columns.sum()),
            [[int(mask.sum()) for mask in layer] for layer in masks],
            bias=module.bias,
            batch_first=module.batch_first,
            dropout=module.dropout,
            device="meta",
            dtype=first.dtype,
        )
        allocate(smaller, first.device)
        for layer, layer_masks in enumerate(masks):
            for direction, mask in enumerate(layer_masks):
                _copy_part(part_weights(module, layer, direction), smaller.part(layer, direction), mask, columns)
            columns = torch.cat(layer_masks)
        return smaller.train(module.training)

    @classmethod
    def from_record(
        cls, record: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> UnevenRecurrent:
        """The layer that a record describes; its weights are undefined.

        Raises:
            CheckpointError: The record is not valid.
        """
        found = parse(UnevenRecord, record)
        return allocate(cls(**found.model_dump(), device="meta", dtype=dtype), device)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return UnevenRecord(
            mode=self.mode,  # type: ignore[arg-type]
            input_size=self.input_size,
            hidden_sizes=self.hidden_sizes,
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
        ).model_dump()

    @property
    def input_size(self) -> int:
        """Number of input features."""
        return self.part(0, 0).input_size

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def bidirectional(self) -> bool:
        """Whether there is a backward direction."""
        return len(self.reverse_layers) > 0

    @property
    def hidden_sizes(self) -> list[list[int]]:
        """For each layer, its size forward and, where it is bidirectional, backward."""
        directions = 2 if self.bidirectional else 1
        return [
            [self.part(layer, direction).hidden_size for direction in range(directions)]
            for layer in range(self.num_layers)
        ]

    @property
    def hidden_size(self) -> int | tuple[int, ...]:
        """The one hidden size, or where they differ all of them, in the order of `h_n`."""
        sizes = tuple(size for layer in self.hidden_sizes for size in layer)
        return sizes[0] if len(set(sizes)) == 1 else sizes

    def part(self, layer: int, direction: int) -> nn.RNNBase:
        """The one-layer, one-direction module that computes a layer in a direction."""
        part = (self.layers, self.reverse_layers)[direction][layer]
        assert isinstance(part, nn.RNNBase)
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
            hx: Initial states: h_0, and (h_0, c_0) for an LSTM, each as `Initial`; without the axis B where the input
                is unbatched. Zeros by default.

        Returns:
            The outputs of the last layer, the directions side by side, in the form of `input`; and h_n, or (h_n, c_n).
        """
        if isinstance(input, PackedSequence):
            output, last = self._run(input, self._initial_states(hx, batched=True))
            return output, self._last_states(last, batched=True)
        if input.dim() not in (2, 3):
            raise ValueError(f"the input has {input.dim()} axes; a sequence has 2, a batch of sequences 3")
        batched = input.dim() == 3
        swap = batched and self.batch_first
        sequence = input.transpose(0, 1) if swap else input if batched else input.unsqueeze(1)  # (T, B, F)
        result, last = self._run(sequence, self._initial_states(hx, batched=batched))
        output = _data(result)  # (T, B, H)
        output = output.transpose(0, 1) if swap else output if batched else output.squeeze(1)
        return output, self._last_states(last, batched=batched)

    def _run(self, sequence: Steps, initial: list[list[Tensor]]) -> tuple[Steps, list[list[Tensor]]]:
        """All layers: the output and, for h and c, the last states (1, B, H_i) of every part."""
        order = _reversing_order(sequence) if isinstance(sequence, PackedSequence) and self.bidirectional else None
        last: list[list[Tensor]] = []
        for layer in range(self.num_layers):
            if layer:
                sequence = _with_data(sequence, nn.functional.dropout(_data(sequence), self.dropout, self.training))
            outputs = []
            for direction in range(2 if self.bidirectional else 1):
                given = _reversed(sequence, order) if direction else sequence
                output, states = self._run_part(self.part(layer, direction), given, initial, len(last))
                outputs.append(_data(_reversed(output, order) if direction else output))
                last.append(states)
            sequence = _with_data(sequence, torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0])
        return sequence, [list(of_one_kind) for of_one_kind in zip(*last, strict=True)]

    def _run_part(
        self, part: nn.RNNBase, sequence: Steps, initial: list[list[Tensor]], index: int
    ) -> tuple[Steps, list[Tensor]]:
        states = [of_one_kind[index] for of_one_kind in initial]
        hx = (tuple(states) if self.mode == "LSTM" else states[0]) if states else None
        output, last = part(sequence, hx)
        return output, list(last) if self.mode == "LSTM" else [last]

    def _initial_states(self, hx: Any, *, batched: bool) -> list[list[Tensor]]:
        """For h and, in an LSTM, c: the initial states (1, B, H_i) of every part; empty where none are given."""
        if hx is None:
            return []
        kinds = list(hx) if self.mode == "LSTM" else [hx]
        if self.mode == "LSTM" and len(kinds) != 2:
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
                f"the initial state has {len(parts)} parts of shapes {[tuple(part.shape) for part in parts]}, where "
                f"{len(sizes)} with {axes} axes are needed, one for each layer and direction"
            )
        return [part.unsqueeze(0) if batched else part[None, None] for part in parts]

    def _last_states(self, last: list[list[Tensor]], *, batched: bool) -> Any:
        kinds = [stack_states(parts if batched else [part.squeeze(1) for part in parts]) for parts in last]
        return tuple(kinds) if self.mode == "LSTM" else kinds[0]

    def extra_repr(self) -> str:
        """The structure in one line."""
        flags = f"bias={self.bias}, batch_first={self.batch_first}, dropout={self.dropout}"
        return f"{self.mode}, {self.input_size}, {self.hidden_sizes}, {flags}"


@dataclass(frozen=True)
class PartWeights:
    """The weights of one layer in one direction, with G gates, H units and I inputs."""

    weight_ih: Tensor
    """(G * H, I)"""
    weight_hh: Tensor
    """(G * H, H)"""
    biases: tuple[Tensor, ...]
    """`bias_ih` and `bias_hh` (G * H,), or none."""
    projection: Tensor | None = None
    """`weight_hr` (P, H) of an LSTM with `proj_size` P; `weight_hh` is then (G * H, P)."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in PyTorch's order."""
        return (self.weight_ih, self.weight_hh, *self.biases)


def part_weights(module: nn.RNNBase | UnevenRecurrent, layer: int, direction: int) -> PartWeights:
    """The weights of one layer in one direction of either kind of module."""
    if isinstance(module, UnevenRecurrent):
        return part_weights(module.part(layer, direction), 0, 0)
    suffix = f"l{layer}" + ("_reverse" if direction else "")
    biases = ("bias_ih", "bias_hh") if module.bias else ()
    return PartWeights(
        getattr(module, f"weight_ih_{suffix}"),
        getattr(module, f"weight_hh_{suffix}"),
        tuple(getattr(module, f"{name}_{suffix}") for name in biases),
        getattr(module, f"weight_hr_{suffix}") if module.proj_size else None,
    )


def stack_states(parts: Sequence[Tensor]) -> Tensor | States:
    """Last states (1, ..., H_i), one for each part, as a model reads them: (L * D, ..., H) where all H_i are equal."""
    if len({part.shape[-1] for part in parts}) == 1:
        return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    return States([part.squeeze(0) for part in parts])


def _part(
    mode: str, inputs: int, size: int, bias: bool, device: torch.device | str | None, dtype: torch.dtype | None
) -> nn.RNNBase:
    options: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
    if mode == "GRU":
        return nn.GRU(inputs, size, **options)
    if mode == "LSTM":
        return nn.LSTM(inputs, size, **options)
    return nn.RNN(inputs, size, nonlinearity={"RNN_TANH": "tanh", "RNN_RELU": "relu"}[mode], **options)


def _refuse_projections(module: nn.RNNBase | UnevenRecurrent) -> None:
    if module.proj_size:
        raise SurgeryError(
            f"an LSTM with proj_size={module.proj_size} cannot have layers of different sizes",
            hint="remove the same number of units from each of its layers",
        )


def _complete_masks(module: nn.RNNBase | UnevenRecurrent, kept: Mapping[Part, Tensor]) -> list[list[Tensor]]:
    """The mask of every part, layer by layer."""
    masks = [
        [
            _mask(
                f"layer {layer}, direction {direction}",
                kept.get((layer, direction)),
                part_weights(module, layer, direction).weight_hh.size(1),
            )
            for direction in range(2 if module.bidirectional else 1)
        ]
        for layer in range(module.num_layers)
    ]
    unknown = set(kept) - {(layer, direction) for layer, row in enumerate(masks) for direction in range(len(row))}
    if unknown:
        raise SurgeryError(f"the module has no layer and direction {sorted(unknown)}")
    return masks


def _mask(what: str, mask: Tensor | None, size: int) -> Tensor:
    if mask is None:
        return torch.ones(size, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != (size,):
        raise SurgeryError(
            f"the mask of {what} is {mask.dtype} of shape {tuple(mask.shape)}; {size} truth values are needed"
        )
    if not bool(mask.any()):
        raise SurgeryError(f"nothing would be left of {what}", hint="lower `ratio` or `count`")
    return mask.cpu()


def _copy_part(source: PartWeights, target: nn.RNNBase, units: Tensor, inputs: Tensor) -> None:
    """Copy the rows of the kept units in every gate, and the columns of the kept inputs and units."""
    device = source.weight_ih.device
    rows = units.repeat(GATES[target.mode]).nonzero().flatten().to(device)
    columns = (inputs.nonzero().flatten().to(device), units.nonzero().flatten().to(device))
    with torch.no_grad():
        for index, (old, new) in enumerate(zip(source.tensors, part_weights(target, 0, 0).tensors, strict=True)):
            chosen = old.index_select(0, rows)
            new.copy_(chosen.index_select(1, columns[index]) if old.dim() == 2 else chosen)
            new.requires_grad_(old.requires_grad)


def _data(sequence: Tensor | PackedSequence) -> Tensor:
    """The features: (T, B, F), or of a packed sequence (steps of all samples, F)."""
    return sequence.data if isinstance(sequence, PackedSequence) else sequence


def _with_data(sequence: Steps, data: Tensor) -> Steps:
    """The same batch with other features."""
    if isinstance(sequence, PackedSequence):
        return PackedSequence(data, sequence.batch_sizes, sequence.sorted_indices, sequence.unsorted_indices)
    return data


def _reversed(sequence: Steps, order: Tensor | None) -> Steps:
    """Each sample backward in time."""
    data = _data(sequence)
    return _with_data(sequence, data.flip(0) if order is None else data.index_select(0, order))


def _reversing_order(sequence: PackedSequence) -> Tensor:
    """For each row of the packed data, the row that takes its place when every sample is reversed by its own length.

    Row `starts[t] + b` holds step t of the b-th longest sample, and gets step `lengths[b] - 1 - t`; doing it twice
    gives the sequence back.
    """
    sizes = sequence.batch_sizes  # (T,), on the CPU
    running = torch.arange(int(sizes[0])) < sizes[:, None]  # (T, B): the sample is not over yet
    starts, lengths = sizes.cumsum(0) - sizes, running.sum(0)
    step, sample = running.nonzero(as_tuple=True)
    return (starts[lengths[sample] - 1 - step] + sample).to(sequence.data.device)
