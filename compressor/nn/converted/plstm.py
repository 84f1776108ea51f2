r"""Source-transition-mark network (pLSTM) over time: memories of key-value products that fade as gates say.

With h heads of k key channels and d values, the memory of a head and its output are

.. math::
    C_t = T_t C_{t-1} + S_t k_t v_t^T, \quad y_t = M_t C_{t-1}^T q_t + D_t (q_t \cdot k_t) v_t

where q, k and v are linear in the input, and source S, transition T, mark M and direct D are sigmoids of the input, or
numbers of each head (`constant_gates`). Units (a Linear and relu) behind the heads mix them. The sums are in
`source_mark`.

Source: pLSTM, arXiv 2506.11997, section 3. Its modes of stability (P and D) are about two dimensions; in one a T of at
most 1 is stable. Its convolution in front, its norm of the outputs and transitions that are matrices are left out: the
units do what the norm would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from compressor.nn.attention.prefix import working_type
from compressor.nn.converted.heads import HeadedLayer, HeadedRecord, fading
from compressor.nn.converted.layer import is_traced
from compressor.nn.converted.source_mark import Gates, advance, advance_one, whole
from compressor.nn.converted.starts import start_heads, start_units
from compressor.nn.factory import factory_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.converted.heads import HeadSizes

CHUNK = 64
"""Positions at once in training: what lies before a chunk is summed up in its memory."""
_GATES = len(Gates._fields)
_SHORTEST, _LONGEST = 1.0, 100.0
"""Positions after which a memory has faded to 1/e at the start."""
_OPEN = 2.0
"""Mark and direct before the sigmoid at the start."""
_LEAST = 1e-4
"""No transition is smaller: its logarithm is finite, in half precision too."""


class PlstmRecord(HeadedRecord):
    """What a `PlstmLayer` is built from."""

    constant_gates: bool


class PlstmLayer(HeadedLayer):
    """`project` to queries, keys, values and gates, the memories, `expand` to relu units, `readout`."""

    label = "pLSTM"
    record_type = PlstmRecord

    def __init__(
        self, input_size: int, output_size: int, *, constant_gates: bool = False, **sizes: Unpack[HeadSizes]
    ) -> None:
        """With fading spread over the heads, evenly in its logarithm.

        Args:
            input_size: I.
            output_size: O.
            constant_gates: The gates are numbers of each head instead of functions of the input.
            **sizes: See `HeadSizes`.
        """
        super().__init__(**sizes)
        factory, heads = factory_options(sizes), self.heads
        rows = 2 * self.keys + self.values + (0 if constant_gates else _GATES)
        self.project = nn.Linear(input_size, heads * rows, **factory)
        self.gates = nn.Parameter(torch.empty(heads, _GATES, **factory)) if constant_gates else None
        self._add_units(output_size, sizes["hidden"], factory)
        raw = self.project.bias.unflatten(0, (heads, rows))[:, -_GATES:] if self.gates is None else self.gates
        with torch.no_grad():
            raw.copy_(_biases(heads))

    def own_fields(self) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {**super().own_fields(), "constant_gates": self.gates is not None}

    @classmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {**super().own_usual(width), "constant_gates": False}

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        gates = ", constant gates" if record["constant_gates"] else ""
        return f"{record['heads']} heads of {record['keys']} key channels{gates}"

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`: chunk by chunk, or at once while a model is traced or exported."""
        parts = self._split(x)
        if is_traced() or x.shape[1] <= CHUNK:
            return self._units(whole(*parts), x)
        return self._units(self.by_chunks(*parts), x)

    def by_chunks(self, queries: Tensor, keys: Tensor, values: Tensor, gates: Gates) -> Tensor:
        """`whole` in memory proportional to T."""
        memory, outputs = self._empty(values, len(values)), []
        for start in range(0, values.shape[-2], CHUNK):
            part = slice(start, start + CHUNK)
            inside = (queries[..., part, :], keys[..., part, :], values[..., part, :])
            output, memory = advance(*inside, Gates(*(gate[..., part] for gate in gates)), memory)
            outputs.append(output)
        return torch.cat(outputs, -2)

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """`memory` (1, h, k, d)."""
        return [("memory", self._empty(self.readout.weight.detach(), 1))]

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`."""
        queries, keys, values, gates = self._split(x)
        [memory] = states
        if x.shape[1] == 1:
            one = (queries[..., 0, :], keys[..., 0, :], values[..., 0, :])
            output, memory = advance_one(*one, Gates(*(gate[..., 0] for gate in gates)), memory)
            output = output.unsqueeze(-2)
        else:
            output, memory = advance(queries, keys, values, gates, memory)
        return self._units(output, x), [memory]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Gates]:
        """Inputs (B, T, I) to queries and keys (B, h, T, k), values (B, h, T, d) and gates, in float32 or wider."""
        projected = self.project(x).to(working_type(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, T, .)
        queries, keys, rest = projected.split([self.keys, self.keys, projected.shape[-1] - 2 * self.keys], -1)
        if self.gates is None:
            values, raw = rest.split([self.values, _GATES], -1)
        else:
            values, raw = rest, self.gates.to(rest.dtype)[None, :, None, :].expand(1, -1, x.shape[1], -1)
        transition, source, mark, direct = torch.sigmoid(raw).unbind(-1)  # (B or 1, h, T) each
        return queries, keys, values, Gates(_LEAST + (1 - _LEAST) * transition, source, mark, direct)

    def _units(self, outputs: Tensor, x: Tensor) -> Tensor:
        """Outputs (B, h, T, d) side by side, and the units behind them."""
        return torch.relu(self.expand(outputs.transpose(1, 2).flatten(2).to(x.dtype)))

    def _empty(self, like: Tensor, batch: int) -> Tensor:
        return like.new_zeros(batch, self.heads, self.keys, self.values, dtype=working_type(like))

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Values along the directions that drive the old layer; queries, keys and gates read random mixtures of them.

        Transitions fade over 1 to 100 positions, and a source is 1 - T, so that a memory starts as an average.
        """
        biases = _biases(self.heads)
        gates = biases if self.gates is None else biases[:, :0]
        start_heads(self.project, x, drive, generator, values=self.values, gates=gates)
        start_units(self.expand, generator)
        if self.gates is not None:
            with torch.no_grad():
                self.gates.copy_(biases)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"heads={self.heads}, keys={self.keys}, values={self.values}, constant_gates={self.gates is not None}"


def _biases(heads: int) -> Tensor:
    """The gates (h, 4) before the sigmoid: heads fade from fast to slow."""
    transition = fading(heads, _SHORTEST, _LONGEST)
    still = torch.full_like(transition, _OPEN)
    return torch.stack([transition, -transition, still, still], -1)  # sigmoid(-t) = 1 - sigmoid(t)
