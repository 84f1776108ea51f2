"""An Aaren inside third-party attention: a learned query replaces the layer that made the queries.

The author's own code goes on to compute softmax(s q k^T) v under its causal mask, and with one q for all positions that
is an Aaren (see `compressor.nn.attention.aaren`): everything around it, residuals and norms and masks, stays as it is.
On a stream the author's code has only the newest positions to look at; `compressor.streaming.step` then carries the
sums (a, c, m) of the earlier ones, for which the record says where keys, values and output projection are.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from compressor.errors import ExportError
from compressor.nn.attention import prefix
from compressor.nn.attention.folded_scores import projected_query, score_weights
from compressor.nn.attention.multihead import HeadsRecord
from compressor.nn.record import LayerRecord, RecordedLayer, Size, allocate, copy_parameter

Path = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$", max_length=1000)]
"""Name of a module in the whole model."""


class LearnedQueryRecord(HeadsRecord):
    """What a `LearnedQuery` is built from."""

    input_width: Size
    key: Path | None
    """Of the layer that makes the keys; None if this layer makes keys and values too."""
    value: Path | None
    output: Path

    @model_validator(mode="after")
    def _parts_belong_together(self) -> LearnedQueryRecord:
        if (self.key is None) != (self.value is None):
            raise ValueError("keys and values are made by this layer both, or neither")
        return self


class LearnedQuery(RecordedLayer):
    r"""Replaces the `nn.Linear` that made the queries (h * d, E), or queries, keys and values one after another.

    Its `weight` and `bias` are that layer's; `query` (E,) is the one parameter more. The queries that it gives are
    :math:`W_q q + b_q` at every position; keys and values, if it makes them, come from its input as before.
    """

    record_type: ClassVar[type[LayerRecord]] = LearnedQueryRecord
    state_names = ("a", "c", "m")
    """Of the parts of the state."""

    def __init__(self, record: LearnedQueryRecord, *, dtype: torch.dtype | None = None) -> None:
        """Build it on the device `meta`; see `from_layer` and `from_record`."""
        super().__init__()
        self._record = record
        options: dict[str, Any] = {"device": "meta", "dtype": dtype}
        rows = record.num_heads * record.head_width
        if record.key is None:
            rows = 2 * rows + record.num_heads * record.value_head_width
        self.query = nn.Parameter(torch.empty(record.input_width, **options))
        self.weight = nn.Parameter(torch.empty(rows, record.input_width, **options))
        self.register_parameter("bias", nn.Parameter(torch.empty(rows, **options)) if record.bias else None)

    @classmethod
    def from_layer(cls, layer: nn.Linear, record: LearnedQueryRecord) -> LearnedQuery:
        """With copies of a layer's weights and a query of zeros."""
        new = allocate(cls(record, dtype=layer.weight.dtype), layer.weight.device)
        nn.init.zeros_(new.query)
        for name, old in layer.named_parameters():
            copy_parameter(new.get_parameter(name), old)
        return new.train(layer.training)

    @classmethod
    def _built(cls, fields: LearnedQueryRecord, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        return allocate(cls(fields, dtype=dtype), device)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return self._record.model_dump()

    @property
    def num_heads(self) -> int:
        """Number of heads h."""
        return self._record.num_heads

    @property
    def batch_first(self) -> bool:
        """Sequences are (B, T, E), not (T, B, E)."""
        return self._record.batch_first

    def paths(self) -> dict[str, str]:
        """Names in the model of the layers that make keys and values, if they are others, and of the output."""
        paths = {"key": self._record.key, "value": self._record.value, "output": self._record.output}
        return {role: path for role, path in paths.items() if path is not None}

    def forward(self, x: Tensor) -> Tensor:
        """(..., E) -> (..., h * d), the same at every position; with keys and values behind if they are its own."""
        rows = self._query_rows()
        query = projected_query(self.query, self.weight[:rows], self._part(0, rows), x.dtype)
        queries = query.expand(*x.shape[:-1], -1)
        if self._record.key is not None:
            return queries
        rest = nn.functional.linear(x, self.weight[rows:], self._part(rows, None))
        return torch.cat([queries, rest], -1)

    def initial_state(self, batch: int) -> prefix.State:
        """(a, c, m) before the first position: (B, h, d_v) and (B, h) of zeros, and (B, h) of a large negative."""
        shape, width = (batch, self.num_heads), self._record.value_head_width
        dtype = prefix.working_type(self.weight)
        return prefix.initial_state(shape, width, dtype=dtype, device=self.weight.device)

    def step(
        self, x: Tensor, values: Tensor, key: nn.Module | None, state: prefix.State
    ) -> tuple[Tensor, prefix.State]:
        """What the output projection is to be given at the next positions, and the state after them.

        Args:
            x: What the keys are made of (B, n, E).
            values: (B, n, h * d_v).
            key: The layer that makes the keys; None if it is this one.
            state: (a, c, m) after the positions before.

        Returns:
            The context (B, n, h * d_v) and the new state.
        """
        rows, offsets = self._score_weights(key, prefix.working_type(x))
        scores = nn.functional.linear(x.to(rows.dtype), rows, offsets)  # (B, n, h)
        heads = values.unflatten(-1, (self.num_heads, -1)).to(rows.dtype)  # (B, n, h, d_v)
        if x.shape[1] == 1:
            context, state = prefix.advance_one(scores.squeeze(1), heads.squeeze(1), state)
            return context.flatten(1).unsqueeze(1).to(values.dtype), state
        context, state = prefix.advance(scores.transpose(1, 2), heads.transpose(1, 2), state)
        return context.transpose(1, 2).flatten(2).to(values.dtype), state

    def own_values(self, x: Tensor) -> Tensor:
        """The values (..., h * d_v) of x (..., E), if this layer makes them."""
        start = 2 * self._query_rows()
        return nn.functional.linear(x, self.weight[start:], self._part(start, None))

    def _query_rows(self) -> int:
        return self._record.num_heads * self._record.head_width

    def _part(self, start: int, stop: int | None) -> Tensor | None:
        bias: Tensor | None = self.bias  # type: ignore[assignment]
        return None if bias is None else bias[start:stop]

    def _score_weights(self, key: nn.Module | None, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        rows = self._query_rows()
        query = projected_query(self.query, self.weight[:rows], self._part(0, rows), dtype)
        if key is None:
            weight, bias = self.weight[rows : 2 * rows], self._part(rows, 2 * rows)
        elif isinstance(key, nn.Linear):
            weight, bias = key.weight, key.bias
        else:
            raise ExportError(
                f"the keys of an Aaren are made by a `{type(key).__name__}`, which has no step",
                hint="let later steps `ignore` that layer, or leave `stream` out",
            )
        return score_weights(query, weight, bias, self.num_heads, self._record.scale)

    def extra_repr(self) -> str:
        """The structure in one line."""
        record = self._record
        widths = f"{record.num_heads} heads of {record.head_width}, {record.value_head_width} for values"
        return f"{widths}, scale={record.scale:.6g}"
