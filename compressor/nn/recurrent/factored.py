"""PyTorch's recurrent layers with input and recurrent matrices that may be two factors each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import MethodError
from compressor.gates import Mode
from compressor.nn.factory import factory_options
from compressor.nn.record import LayerRecord, Probability, Size, allocate
from compressor.nn.recurrent.compact import CompactOptions, CompactRecurrent, PerPart, is_batch, structure_options
from compressor.nn.recurrent.factored_part import LowRankPart, PartRanks, Ranks, fill, rank_of
from compressor.nn.recurrent.layers import directions, parts
from compressor.nn.recurrent.packed import Steps, with_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.factorisation import Factors
    from compressor.nn.recurrent.cells import RecurrentLayer


class LowRankRecurrentRecord(LayerRecord):
    """What a `LowRankRecurrent` is built from."""

    mode: Mode
    input_size: Size
    hidden_size: Size
    ranks: PerPart[PartRanks]
    bias: bool
    batch_first: bool
    dropout: Probability


class LowRankRecurrent(CompactRecurrent):
    """A recurrent layer as PyTorch's, called in the same way, some of whose matrices are two factors.

    PyTorch runs it with its own kernels on the matrices multiplied out, which costs nothing in accuracy and some
    m n r products a call; gradients reach the factors. `naive` is the loop over time on the factors themselves. An
    exported file never multiplies the factors out (see `exporters.capture.factored_recurrent`).

    Weights are called `layers.0.input.down.weight`, `layers.0.hidden.up.weight`, and so on; of a dense matrix
    `layers.0.input.weight`; `reverse_layers...` for the backward direction.
    """

    record_type = LowRankRecurrentRecord

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        ranks: Sequence[Sequence[Ranks]],
        **options: Unpack[CompactOptions],
    ) -> None:
        """Build the parts, with the initial weights of `nn.Linear`.

        Args:
            mode: See `CompactRecurrent`.
            input_size: Number of input features.
            hidden_size: H.
            ranks: For each layer, the ranks forward and, if it is bidirectional, backward.
            **options: See `CompactOptions`.
        """
        super().__init__(mode, options)
        self.input_size, self.hidden_size = input_size, hidden_size
        parts: dict[str, Any] = {"bias": self.bias, **factory_options(options)}
        width = input_size
        for layer in ranks:
            for group, pair in zip((self.layers, self.reverse_layers), layer, strict=False):
                group.append(LowRankPart(width, hidden_size, self.cell.gates.count, pair, parts))
            width = len(layer) * hidden_size

    @classmethod
    def from_module(cls, module: RecurrentLayer, factors: Mapping[str, Factors]) -> LowRankRecurrent:
        """The same layer in factors; the layer of PyTorch, without projections, is left as it is.

        Args:
            module: The layer.
            factors: Name of a matrix of it, such as `weight_hh_l0` -> its factors; the others stay dense.

        Raises:
            MethodError: The module has projections.
        """
        if module.proj_size:
            raise MethodError(
                f"an LSTM with proj_size={module.proj_size} has its recurrent matrix in low rank already",
                hint="name it under `ignore`",
            )
        sources, count = parts(module), directions(module)
        pairs: list[Ranks] = [
            (rank_of(factors.get(source.names["weight_ih"])), rank_of(factors.get(source.names["weight_hh"])))
            for source in sources
        ]
        first = sources[0].weights(module)["weight_ih"]
        smaller = cls(
            module.mode,
            module.input_size,
            module.hidden_size,
            [pairs[start : start + count] for start in range(0, len(pairs), count)],
            **structure_options(module, first),
        )
        allocate(smaller, first.device)
        for source in sources:
            weights, target = source.weights(module), smaller.part(source.layer, source.direction)
            for linear, kind in ((target.input, "ih"), (target.hidden, "hh")):
                matrix = f"weight_{kind}"
                fill(linear, weights[matrix], weights.get(f"bias_{kind}"), factors.get(source.names[matrix]))
        return smaller.train(module.training)

    @classmethod
    def _built(
        cls, fields: LowRankRecurrentRecord, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> Self:
        arguments = fields.model_dump()
        arguments["ranks"] = [[(part.input, part.hidden) for part in layer] for layer in fields.ranks]  # without names
        return allocate(cls(**arguments, device="meta", dtype=dtype), device)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return LowRankRecurrentRecord(
            mode=self.cell.gates.mode,
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            ranks=[
                [PartRanks(input=pair[0], hidden=pair[1]) for pair in (part.ranks for part in parts)]
                for parts in self._by_layer()
            ],
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
        ).model_dump()

    def part(self, layer: int, direction: int) -> LowRankPart:
        """The weights of one layer in one direction; direction 1 runs backward in time."""
        part = super().part(layer, direction)
        assert isinstance(part, LowRankPart)
        return part

    def _by_layer(self) -> list[list[LowRankPart]]:
        return [
            [self.part(layer, direction) for direction in range(directions(self))] for layer in range(self.num_layers)
        ]

    def flatten_parameters(self) -> None:
        """Nothing: the matrices are multiplied out in every call."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 the layer's name for it in PyTorch
        """Run over a sequence.

        Args:
            input: (T, B, F), (B, T, F) with `batch_first`, unbatched (T, F), or a `PackedSequence`.
            hx: h_0 (L * D, B, H), and (h_0, c_0) for an LSTM; without B if the input is unbatched. Zeros by default.

        Returns:
            The outputs of the last layer, the directions side by side, in the form of `input`; and h_n, or (h_n, c_n).
        """
        weights = [weight for layer in self._by_layer() for part in layer for weight in part.weights]
        shared = (weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        if isinstance(input, PackedSequence):
            return self._run_packed(input, hx, shared)
        cell, batched = self.cell, is_batch(input)
        x = input if batched else input.unsqueeze(0 if self.batch_first else 1)
        if hx is not None and not batched:
            hx = cell.pack([state.unsqueeze(1) for state in cell.unpack(hx)])
        states = self._initial(hx, x, x.size(0 if self.batch_first else 1))
        output, *last = cell.kernel(x, cell.pack(states), *shared, self.batch_first)
        if not batched:
            output, last = output.squeeze(0 if self.batch_first else 1), [state.squeeze(1) for state in last]
        return output, cell.pack(last)

    def _run_packed(self, sequence: PackedSequence, hx: Any, shared: tuple[Any, ...]) -> tuple[Steps, Any]:
        """The same over a packed sequence; `shared` are the weights and options of PyTorch's kernel."""
        states = self._initial(hx, sequence.data, int(sequence.batch_sizes[0]))
        if hx is not None and sequence.sorted_indices is not None:
            states = [state.index_select(1, sequence.sorted_indices) for state in states]
        output, *last = self.cell.kernel(sequence.data, sequence.batch_sizes, self.cell.pack(states), *shared)
        if sequence.unsorted_indices is not None:
            last = [state.index_select(1, sequence.unsorted_indices) for state in last]
        return with_features(sequence, output), self.cell.pack(last)

    def _initial(self, hx: Any, like: Tensor, batch: int) -> list[Tensor]:
        """H_0, and c_0 of an LSTM."""
        if hx is not None:
            return self.cell.unpack(hx)
        rows = self.num_layers * directions(self)
        return [like.new_zeros(rows, batch, self.hidden_size)] * len(self.cell.states)

    def step(self, layer: int, direction: int, x: Tensor, states: Sequence[Tensor]) -> list[Tensor]:
        """One step of one layer in one direction, on x (B, I) and the states (B, H), on the factors themselves."""
        part = self.part(layer, direction)
        return self.cell.update(part.input(x), part.hidden(states[0]), states)

    def naive(self, sequence: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """What `forward` gives without dropout for (T, B, F), whatever `batch_first`, step by step on the factors."""
        states = self._initial(hx, sequence, sequence.size(1))
        last = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions(self)):
                current = [state[layer * directions(self) + direction] for state in states]  # (B, H) each
                steps = []
                for x in sequence.flip(0) if direction else sequence:
                    current = self.step(layer, direction, x, current)
                    steps.append(current[0])
                output = torch.stack(steps)  # (T, B, H)
                outputs.append(output.flip(0) if direction else output)
                last.append(current)
            sequence = torch.cat(outputs, -1)
        return sequence, self.cell.pack([torch.stack(kind) for kind in zip(*last, strict=True)])

    def extra_repr(self) -> str:
        """The structure in one line."""
        ranks = [[part.ranks for part in parts] for parts in self._by_layer()]
        return f"{self.mode}, {self.input_size}, {self.hidden_size}, ranks={ranks}, {self.flags()}"
