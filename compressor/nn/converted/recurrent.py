"""A stack of converted layers that replaces a recurrent layer of PyTorch's, called in the same way."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from compressor.errors import MethodError
from compressor.nn.converted import target
from compressor.nn.converted.target import Target
from compressor.nn.record import LayerRecord, Probability, RecordedLayer, parse
from compressor.nn.recurrent.compact import is_batch
from compressor.nn.recurrent.packed import packed_like
from compressor.nn.recurrent.stack import NoStates
from compressor.nn.recurrent.states import stack_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.converted.layer import SequenceLayer


def _layer(word: Target) -> type[SequenceLayer]:
    module = importlib.import_module(f"compressor.nn.converted.{word}")
    layer: type[SequenceLayer] = getattr(module, target.DESCRIPTIONS[word].layer)
    return layer


TARGETS: dict[Target, type[SequenceLayer]] = {word: _layer(word) for word in target.WORDS}
"""The word after `to` -> the layer that it stands for."""


class NoCellState(NoStates):
    """Given instead of `c_n`, which a converted LSTM does not have; using it raises a `MethodError`."""

    @staticmethod
    def _refused(what: str) -> MethodError:
        return MethodError(
            f"the model reads the last cell state `c_n` of the layer, {what}, and a converted layer has none to give",
            hint="read the outputs or `h_n` instead, or leave the layer as it is (`ignore`)",
        )


class ConvertedRecord(LayerRecord):
    """What a `ConvertedRecurrent` is built from."""

    target: Target
    layers: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1024)]
    """Of each layer."""
    batch_first: bool
    bidirectional: bool
    has_cell_state: bool
    dropout: Probability
    depth: Annotated[int, Field(ge=1, le=64)] = 1

    @model_validator(mode="after")
    def _layers_divide_up(self) -> ConvertedRecord:
        if len(self.layers) % self.depth:
            raise ValueError(f"{len(self.layers)} layers are not a multiple of `depth: {self.depth}`")
        return self


class ConvertedRecurrent(RecordedLayer):
    """`layers`, `depth` for each that is replaced; both directions of a bidirectional one are halves of its outputs.

    It takes what PyTorch's layer takes: (T, B, F), (B, T, F) with `batch_first`, (T, F), or a packed sequence. `h_n` is
    read off the outputs, at the last position of the forward direction and at the first of the backward one, which is
    what it is in PyTorch. There is no `c_n`. It starts from its own states, which are zeros: an initial state has to be
    zeros as well.
    """

    record_type = ConvertedRecord

    def __init__(
        self,
        layers: Sequence[SequenceLayer],
        *,
        batch_first: bool,
        bidirectional: bool,
        has_cell_state: bool,
        dropout: float,
        depth: int = 1,
    ) -> None:
        """A stack.

        Args:
            layers: All of one class; each reads the outputs of the one before.
            batch_first: Batches are (B, T, F) instead of (T, B, F).
            bidirectional: The outputs' second halves are those of a backward direction.
            has_cell_state: Its states are a pair, as an LSTM's are.
            dropout: Probability, in training, of dropping an output of any layer that is replaced but the last.
            depth: So many of `layers`, one after the other, stand for one layer that is replaced; `h_n` has the last
                of each.
        """
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.batch_first, self.bidirectional = batch_first, bidirectional
        self.has_cell_state, self.dropout = has_cell_state, dropout
        self.depth = depth

    @classmethod
    def from_record(
        cls, record: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ConvertedRecurrent:
        """The stack that a record describes; its weights are undefined.

        Raises:
            CheckpointError: The record is not valid.
        """
        fields = parse(ConvertedRecord, record)
        kind = TARGETS[fields.target]
        layers = [kind.from_record(layer, device=device, dtype=dtype) for layer in fields.layers]
        return cls(
            layers,
            batch_first=fields.batch_first,
            bidirectional=fields.bidirectional,
            has_cell_state=fields.has_cell_state,
            dropout=fields.dropout,
            depth=fields.depth,
        )

    def record(self) -> dict[str, Any]:
        """See `RecordedLayer`."""
        return {
            "target": self.target,
            "layers": [layer.record() for layer in self.each],
            "batch_first": self.batch_first,
            "bidirectional": self.bidirectional,
            "has_cell_state": self.has_cell_state,
            "dropout": self.dropout,
            "depth": self.depth,
        }

    @property
    def each(self) -> list[SequenceLayer]:
        """The layers."""
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def target(self) -> Target:
        """The word of what the layers are."""
        return next(word for word, kind in TARGETS.items() if isinstance(self.layers[0], kind))

    @property
    def input_size(self) -> int:
        """Number of input features."""
        return self.each[0].input_size

    @property
    def hidden_size(self) -> int:
        """Features of an output, of one direction."""
        return self.each[-1].output_size // self.directions

    @property
    def num_layers(self) -> int:
        """Number of layers that are replaced, which is what `h_n` has."""
        return len(self.layers) // self.depth

    @property
    def directions(self) -> int:
        """1 or 2."""
        return 2 if self.bidirectional else 1

    @property
    def lookahead(self) -> int:
        """Later positions that an output depends on."""
        return sum(layer.lookahead for layer in self.each)

    def flatten_parameters(self) -> None:
        """There is no kernel that wants the weights in one piece."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 the layer's name for it in PyTorch
        """Run over a sequence.

        Args:
            input: (T, B, F), (B, T, F) with `batch_first`, unbatched (T, F), or a `PackedSequence`.
            hx: None, or initial states of zeros.

        Returns:
            The outputs in the form of `input`; and `h_n`, or of an LSTM `h_n` and what raises an error if it is used.

        Raises:
            MethodError: An initial state is not zero.
        """
        refuse_states(hx)
        if isinstance(input, PackedSequence):
            return self._forward_packed(input)
        batched = is_batch(input)
        swap = batched and not self.batch_first
        x = input.transpose(0, 1) if swap else input if batched else input.unsqueeze(0)  # (B, T, F)
        outputs = self._run(x, None)
        last = [output[:, -1:].transpose(0, 1) for output in outputs]  # (1, B, D * H)
        first = [output[:, :1].transpose(0, 1) for output in outputs]
        parts = self._parts(last, first)
        if not batched:
            return outputs[-1].squeeze(0), self._states([part.squeeze(1) for part in parts])
        return (outputs[-1].transpose(0, 1) if swap else outputs[-1]), self._states(parts)

    def step(self, input: Tensor, states: Sequence[Tensor]) -> tuple[tuple[Tensor, Any], list[Tensor]]:  # noqa: A002
        """The next positions, in the form of a batch: what `forward` gives for them, and the new states.

        Args:
            input: (n, B, F), or (B, n, F) with `batch_first`.
            states: Of all layers, as `initial_states` gives them.
        """
        x = input if self.batch_first else input.transpose(0, 1)  # (B, n, F)
        outputs, new, rest = [], [], list(states)
        for layer in self.each:
            count = len(layer.initial_states())
            x, after = layer.step(x, rest[:count])
            rest = rest[count:]
            outputs.append(x[:, -1:].transpose(0, 1))
            new += after
        output = x if self.batch_first else x.transpose(0, 1)
        return (output, self._states(self._ends(outputs))), new

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """Name and value (1, ...) before the first position, for every state of every layer."""
        every = [layer.initial_states() for layer in self.each]
        if len(every) == 1:
            return every[0]
        return [(f"{index}.{name}", value) for index, states in enumerate(every) for name, value in states]

    def _forward_packed(self, packed: Any) -> tuple[Any, Any]:
        """A packed sequence, or what represents one in a trace, which is padded and has time first."""
        traced = type(packed) is not PackedSequence
        if traced:
            padded, lengths = packed.padded, packed.lengths
        else:
            padded, lengths = pad_packed_sequence(packed)  # (T, B, F), in the order of the batch
        time = torch.arange(padded.shape[0], device=padded.device)
        lengths = lengths.to(padded.device)
        valid = (time[:, None] < lengths).to(padded.dtype).T.unsqueeze(-1)  # (B, T, 1)
        outputs = self._run(padded.transpose(0, 1), valid)
        place = (lengths - 1)[:, None, None]
        last = [output.gather(1, place.expand(-1, 1, output.shape[-1])).transpose(0, 1) for output in outputs]
        states = self._states(self._parts(last, [output[:, :1].transpose(0, 1) for output in outputs]))
        output = (outputs[-1] * valid).transpose(0, 1)  # (T, B, F)
        if traced:
            return packed.with_steps(output), states
        return packed_like(packed, output, lengths), states

    def _run(self, x: Tensor, valid: Tensor | None) -> list[Tensor]:
        """The outputs (B, T, D * H) of every layer that stands last for one that is replaced."""
        outputs: list[Tensor] = []
        for index, layer in enumerate(self.each):
            if index and index % self.depth == 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            x = layer(x, valid)
            outputs.append(x)
        return self._ends(outputs)

    def _ends(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Of what every layer gives, what stands for the outputs of the layers that are replaced."""
        return list(outputs[self.depth - 1 :: self.depth])

    def _parts(self, last: Sequence[Tensor], first: Sequence[Tensor]) -> list[Tensor]:
        """The parts (1, B, H) of h_n from the outputs (1, B, D * H) of every layer at their ends."""
        if not self.bidirectional:
            return list(last)
        return [part for ends in zip(last, first, strict=True) for part in _both(*ends)]

    def _states(self, parts: Sequence[Tensor]) -> Any:
        """What the layer gives beside its outputs, from the parts of h_n; sizes may differ from layer to layer."""
        h = stack_states(parts)
        return (h, NoCellState()) if self.has_cell_state else h

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.target}, {self.input_size}, {self.hidden_size}, batch_first={self.batch_first}"


def refuse_states(hx: Any) -> None:
    """Raise a `MethodError` if an initial state is given that is not zero; while a model is traced its values are none.

    Whoever converts a layer has looked at the states that the model gives it.
    """
    if hx is None or torch.compiler.is_compiling():
        return
    states = hx if isinstance(hx, (tuple, list)) else [hx]
    if any(isinstance(state, Tensor) and bool(state.detach().count_nonzero()) for state in states):
        raise MethodError(
            "the model gives the layer an initial state that is not zero, and a converted layer has other states",
            hint="call the layer without one, which starts from zeros, or leave the layer as it is (`ignore`)",
        )


def _both(last: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """The end of the forward direction and that of the backward one, (1, B, H) each, from (1, B, 2 H)."""
    return last.chunk(2, -1)[0], first.chunk(2, -1)[1]
