r"""Matrix-to-matrix recurrence (M2RNN): each head holds a matrix, which a position mixes, squashes and writes to.

With h heads of k key channels and d values, the matrix H of a head (k, d) and its output are

.. math::
    Z_t = \tanh(H_{t-1} W + k_t v_t^T), \quad H_t = f_t H_{t-1} + (1 - f_t) Z_t, \quad
    y_t = H_t^T q_t + w \odot v_t

where q, k and v are linear in the input, f is a sigmoid of it, one number a head, and W (d, d) and w (d) belong to the
head. Units (a Linear and relu) behind the heads mix them. A row of H is a tanh RNN of d units; all rows share W, so the
state is k times larger than what its weights would be in an RNN.

The recurrence is not linear and W mixes values, so no form goes through all positions at once: a whole sequence is a
loop, and a `Scan` in a file.

Source: M2RNN, arXiv 2603.14360. W starts as a random rotation, where the paper's models start from the identity. Its
gate is a softplus of the input with a learned rate, here a sigmoid; its convolution in front, its gate and norm of the
outputs and its clipping of the state's gradient are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from compressor.nn.attention.prefix import working_type
from compressor.nn.converted.heads import HeadedLayer, HeadedRecord, fading
from compressor.nn.converted.starts import start_heads, start_units
from compressor.nn.factory import factory_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.converted.heads import HeadSizes

_SHORTEST, _LONGEST = 0.3, 100.0
"""Positions after which a head has forgotten all but 1/e at the start."""


class M2rnnRecord(HeadedRecord):
    """What an `M2rnnLayer` is built from."""


class M2rnnLayer(HeadedLayer):
    """`project` to queries, keys, values and gates, the matrices, `expand` to relu units, `readout`."""

    label = "M2RNN"
    record_type = M2rnnRecord

    def __init__(self, input_size: int, output_size: int, **sizes: Unpack[HeadSizes]) -> None:
        """With random rotations W, and forgetting spread over the heads, evenly in its logarithm.

        Args:
            input_size: I.
            output_size: O.
            **sizes: See `HeadSizes`; the matrix of a head has a row for each key and a column for each value.
        """
        super().__init__(**sizes)
        factory, heads, keys, values = factory_options(sizes), self.heads, self.keys, self.values
        self.project = nn.Linear(input_size, heads * (2 * keys + values + 1), **factory)
        self.mix = nn.Parameter(torch.empty(heads, values, values, **factory))  # W
        self.skip = nn.Parameter(torch.ones(heads, values, **factory))  # w
        self._add_units(output_size, sizes["hidden"], factory)
        for matrix in self.mix.detach():
            nn.init.orthogonal_(matrix)
        with torch.no_grad():
            self.project.bias.unflatten(0, (heads, -1))[:, -1:] = _biases(heads).to(self.project.bias)

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        return f"{record['heads']} heads, matrices of {record['keys']} rows"

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`."""
        states = [value.expand(x.shape[0], -1, -1, -1) for _, value in self.initial_states()]
        return self.step_features(x, states)[0]

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """`matrix` (1, h, k, d)."""
        weight = self.readout.weight.detach()
        return [("matrix", weight.new_zeros(1, self.heads, self.keys, self.values, dtype=working_type(weight)))]

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`: one position after the other, in float32 or wider."""
        kind = working_type(x)
        projected = self.project(x).to(kind).unflatten(-1, (self.heads, -1))  # (B, T, h, 2 k + d + 1)
        queries, keys, values, gates = projected.split([self.keys, self.keys, self.values, 1], -1)
        mix, keep = self.mix.to(kind), torch.sigmoid(gates).unsqueeze(-1)  # (B, T, h, 1, 1)
        [matrix], outputs = states, []
        for position in range(x.shape[1]):
            written = keys[:, position].unsqueeze(-1) * values[:, position].unsqueeze(-2)  # (B, h, k, d)
            new = torch.tanh(matrix @ mix + written)
            matrix = new + keep[:, position] * (matrix - new)
            outputs.append((queries[:, position].unsqueeze(-2) @ matrix).squeeze(-2))  # (B, h, d)
        read = torch.stack(outputs, 1) + self.skip.to(kind) * values
        return torch.relu(self.expand(read.flatten(2).to(x.dtype))), [matrix]

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Values along the directions that drive the old layer; queries, keys and gates read random mixtures."""
        start_heads(
            self.project,
            x,
            drive,
            generator,
            values=self.values,
            gates=_biases(self.heads),
        )
        start_units(self.expand, generator)
        random = torch.randn(*self.mix.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.mix.copy_(torch.linalg.qr(random)[0])
            self.skip.fill_(1.0)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"heads={self.heads}, keys={self.keys}, values={self.values}"


def _biases(heads: int) -> Tensor:
    """The gates (h, 1) before the sigmoid: heads forget from fast to slow."""
    return fading(heads, _SHORTEST, _LONGEST).unsqueeze(-1)
