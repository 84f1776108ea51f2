"""`nn.RNN`, `nn.GRU` and `nn.LSTM` whose input and recurrent matrices may be two factors each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import MethodError
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.record import LayerRecord, Probability, Size, allocate, parse
from compressor.nn.recurrent.gates import GATES, layer_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.factorisation import Factors

Ranks = tuple[int | None, int | None]
"""Of the input and of the recurrent matrix of one layer and direction; None = one dense matrix."""
_RUN: dict[str, Any] = {"RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu, "GRU": torch.gru, "LSTM": torch.lstm}
_MOST_LAYERS = 1024


class PartRanks(LayerRecord):
    """The ranks of one layer in one direction."""

    input: Size | None
    hidden: Size | None


class LowRankRecurrentRecord(LayerRecord):
    """What a `LowRankRecurrent` is built from."""

    mode: Literal["RNN_TANH", "RNN_RELU", "GRU", "LSTM"]
    input_size: Size
    hidden_size: Size
    ranks: Annotated[
        list[Annotated[list[PartRanks], Field(min_length=1, max_length=2)]],
        Field(min_length=1, max_length=_MOST_LAYERS),
    ]
    """Layer by layer, the forward direction first."""
    bias: bool
    batch_first: bool
    dropout: Probability

    @field_validator("ranks")
    @classmethod
    def _as_many_directions_everywhere(cls, ranks: list[list[PartRanks]]) -> list[list[PartRanks]]:
        if len({len(layer) for layer in ranks}) > 1:
            raise ValueError("every layer has to have the same number of directions")
        return ranks


class LowRankPart(nn.Module):
    """The weights of one layer in one direction: what `input` makes of x_t and `hidden` of h_{t-1} goes into G gates.

    Each is an `nn.Linear` or a `LowRankLinear` with G * H outputs, gate after gate as in PyTorch.
    """

    input: nn.Linear | LowRankLinear
    hidden: nn.Linear | LowRankLinear

    def __init__(self, input_size: int, hidden_size: int, gates: int, ranks: Ranks, options: dict[str, Any]) -> None:
        """`options`: `bias`, `device` and `dtype` of the layers."""
        super().__init__()
        rows = gates * hidden_size
        for name, size, rank in zip(("input", "hidden"), (input_size, hidden_size), ranks, strict=True):
            made = nn.Linear(size, rows, **options) if rank is None else LowRankLinear(size, rows, rank, **options)
            setattr(self, name, made)

    @property
    def ranks(self) -> Ranks:
        """Of both matrices."""
        found = [part.rank if isinstance(part, LowRankLinear) else None for part in (self.input, self.hidden)]
        return found[0], found[1]

    @property
    def weights(self) -> list[Tensor]:
        """As PyTorch's functions take them: both matrices multiplied out, and both biases where there are any."""
        biases = [part.bias for part in (self.input, self.hidden) if part.bias is not None]
        return [self.input.weight, self.hidden.weight, *biases]


class LowRankRecurrent(nn.Module):
    """A recurrent layer as PyTorch's, called in the same way, some of whose matrices are two factors.

    PyTorch runs it with its own kernels on the matrices multiplied out, which costs nothing in accuracy and some
    m n r products a call; gradients reach the factors. `naive` is the loop over time on the factors themselves. An
    exported file never multiplies the factors out (see `exporters.capture.factored_recurrent`).

    Weights are called `layers.0.input.down.weight`, `layers.0.hidden.up.weight`, and so on; where a matrix is dense
    `layers.0.input.weight`; `reverse_layers...` for the backward direction.
    """

    proj_size = 0
    """There are no projections."""

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        ranks: Sequence[Sequence[Ranks]],
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Build the parts, with the initial weights of `nn.Linear`.

        Args:
            mode: `RNN_TANH`, `RNN_RELU`, `GRU` or `LSTM`.
            input_size: Number of input features.
            hidden_size: H.
            ranks: For each layer, the ranks forward and, where it is bidirectional, backward.
            bias: Each part has both biases, or none.
            batch_first: Batches are (B, T, F) instead of (T, B, F).
            dropout: Probability, in training, of dropping an output of any layer but the last.
            device: Where the weights lie.
            dtype: Their type.
        """
        super().__init__()
        self.mode, self.input_size, self.hidden_size = mode, input_size, hidden_size
        self.bias, self.batch_first, self.dropout = bias, batch_first, dropout
        options = {"bias": bias, "device": device, "dtype": dtype}
        self.layers = nn.ModuleList()
        self.reverse_layers = nn.ModuleList()
        features = input_size
        for layer in ranks:
            for parts, pair in zip((self.layers, self.reverse_layers), layer, strict=False):
                parts.append(LowRankPart(features, hidden_size, GATES[mode], pair, options))
            features = len(layer) * hidden_size

    @classmethod
    def from_module(cls, module: nn.RNNBase, factors: Mapping[str, Factors]) -> LowRankRecurrent:
        """In the place of a recurrent layer of PyTorch without projections, which is left as it is.

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
        names = list(layer_names(module))
        directions = 2 if module.bidirectional else 1
        pairs: list[Ranks] = [
            (_rank(factors.get(part.weight_ih)), _rank(factors.get(part.weight_hh))) for part in names
        ]
        first = module.get_parameter(names[0].weight_ih)
        made = cls(
            module.mode,
            module.input_size,
            module.hidden_size,
            [pairs[start : start + directions] for start in range(0, len(pairs), directions)],
            bias=module.bias,
            batch_first=module.batch_first,
            dropout=module.dropout,
            device="meta",
            dtype=first.dtype,
        )
        allocate(made, first.device)
        for part in names:
            own = made.part(part.layer, part.direction)
            for linear, weight, bias in (
                (own.input, part.weight_ih, part.bias_ih),
                (own.hidden, part.weight_hh, part.bias_hh),
            ):
                _fill(
                    linear,
                    module.get_parameter(weight),
                    None if bias is None else module.get_parameter(bias),
                    factors.get(weight),
                )
        return made.train(module.training)

    @classmethod
    def from_record(
        cls, record: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> LowRankRecurrent:
        """The layer that a record describes; its weights are undefined.

        Raises:
            CheckpointError: The record is not valid.
        """
        found = parse(LowRankRecurrentRecord, record).model_dump()
        found["ranks"] = [[(part["input"], part["hidden"]) for part in layer] for layer in found["ranks"]]
        return allocate(cls(**found, device="meta", dtype=dtype), device)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return LowRankRecurrentRecord(
            mode=self.mode,  # type: ignore[arg-type]
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

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def bidirectional(self) -> bool:
        """Whether there is a backward direction."""
        return len(self.reverse_layers) > 0

    def part(self, layer: int, direction: int) -> LowRankPart:
        """The weights of one layer in one direction; direction 1 runs backward in time."""
        part = (self.layers, self.reverse_layers)[direction][layer]
        assert isinstance(part, LowRankPart)
        return part

    def _by_layer(self) -> list[list[LowRankPart]]:
        directions = 2 if self.bidirectional else 1
        return [[self.part(layer, direction) for direction in range(directions)] for layer in range(self.num_layers)]

    def flatten_parameters(self) -> None:
        """Nothing: the matrices are multiplied out in every call."""

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:  # noqa: A002 the layer's name for it in PyTorch
        """Run over a sequence.

        Args:
            input: (T, B, F), (B, T, F) with `batch_first`, unbatched (T, F), or a `PackedSequence`.
            hx: h_0 (L * D, B, H), and (h_0, c_0) for an LSTM; without B where the input is unbatched. Zeros by default.

        Returns:
            The outputs of the last layer, the directions side by side, in the form of `input`; and h_n, or (h_n, c_n).
        """
        weights = [weight for parts in self._by_layer() for part in parts for weight in part.weights]
        shared = (weights, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        pair = self.mode == "LSTM"
        if isinstance(input, PackedSequence):
            size = int(input.batch_sizes[0])
            states = self._initial(hx, input.data, size)
            if hx is not None and input.sorted_indices is not None:
                states = [state.index_select(1, input.sorted_indices) for state in states]
            data, *last = _RUN[self.mode](input.data, input.batch_sizes, states if pair else states[0], *shared)
            output: Any = PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            if input.unsorted_indices is not None:
                last = [state.index_select(1, input.unsorted_indices) for state in last]
            return output, tuple(last) if pair else last[0]
        if input.dim() not in (2, 3):
            raise ValueError(f"the input has {input.dim()} axes; a sequence has 2, a batch of sequences 3")
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(0 if self.batch_first else 1)
        if hx is not None and not batched:
            hx = tuple(state.unsqueeze(1) for state in hx) if pair else hx.unsqueeze(1)
        states = self._initial(hx, x, x.size(0 if self.batch_first else 1))
        output, *last = _RUN[self.mode](x, states if pair else states[0], *shared, self.batch_first)
        if not batched:
            output, last = output.squeeze(0 if self.batch_first else 1), [state.squeeze(1) for state in last]
        return output, tuple(last) if pair else last[0]

    def _initial(self, hx: Any, like: Tensor, batch: int) -> list[Tensor]:
        """h_0, and c_0 of an LSTM."""
        if hx is not None:
            return list(hx) if self.mode == "LSTM" else [hx]
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return [like.new_zeros(rows, batch, self.hidden_size)] * (2 if self.mode == "LSTM" else 1)

    def naive(self, sequence: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """What `forward` gives without dropout for (T, B, F), whatever `batch_first`, step by step on the factors."""
        states = self._initial(hx, sequence, sequence.size(1))
        last = []
        for layer, parts in enumerate(self._by_layer()):
            outputs = []
            for direction, part in enumerate(parts):
                own = [state[layer * len(parts) + direction] for state in states]  # h (B, H), and c
                steps = []
                for x in sequence.flip(0) if direction else sequence:
                    own = naive_step(self.mode, part, x, own)
                    steps.append(own[0])
                output = torch.stack(steps)  # (T, B, H)
                outputs.append(output.flip(0) if direction else output)
                last.append(own)
            sequence = torch.cat(outputs, -1)
        stacked = [torch.stack(kind) for kind in zip(*last, strict=True)]
        return sequence, tuple(stacked) if self.mode == "LSTM" else stacked[0]

    def extra_repr(self) -> str:
        """The structure in one line."""
        ranks = [[part.ranks for part in parts] for parts in self._by_layer()]
        flags = f"bias={self.bias}, batch_first={self.batch_first}, dropout={self.dropout}"
        return f"{self.mode}, {self.input_size}, {self.hidden_size}, ranks={ranks}, {flags}"


def naive_step(mode: str, part: LowRankPart, x: Tensor, states: list[Tensor]) -> list[Tensor]:
    """One step of one layer, on x (B, I) and h (B, H), and c (B, H) of an LSTM, by the formulas of PyTorch's layers."""
    from_input, from_hidden = part.input(x), part.hidden(states[0])  # (B, G * H)
    if mode == "GRU":
        (reset, update, new), (h_reset, h_update, h_new) = from_input.chunk(3, -1), from_hidden.chunk(3, -1)
        keep = torch.sigmoid(update + h_update)
        candidate = torch.tanh(new + torch.sigmoid(reset + h_reset) * h_new)
        return [(1 - keep) * candidate + keep * states[0]]
    total = from_input + from_hidden
    if mode == "LSTM":
        enter, forget, new, out = total.chunk(4, -1)
        cell = torch.sigmoid(forget) * states[1] + torch.sigmoid(enter) * torch.tanh(new)
        return [torch.sigmoid(out) * torch.tanh(cell), cell]
    return [torch.relu(total) if mode == "RNN_RELU" else torch.tanh(total)]


def _rank(factors: Factors | None) -> int | None:
    return None if factors is None else factors.rank


def _fill(linear: nn.Linear | LowRankLinear, weight: Tensor, bias: Tensor | None, factors: Factors | None) -> None:
    if isinstance(linear, LowRankLinear):
        assert factors is not None
        linear.set_factors(factors, bias)
    else:
        with torch.no_grad():
            linear.weight.copy_(weight)
            if bias is not None:
                linear.bias.copy_(bias)
    for parameter in linear.parameters():
        parameter.requires_grad_(weight.requires_grad)
