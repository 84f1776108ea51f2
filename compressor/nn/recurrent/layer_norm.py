r"""LSTM with layer normalisation (Ba et al., arXiv 1607.06450, equations 20 to 22), called as PyTorch's layers are.

.. math::
    (i, f, g, o) = N_x(W x) + N_h(U h), \quad c' = \sigma(f) c + \sigma(i) \tanh(g), \quad h' = \sigma(o) \tanh(N_c(c'))

N_x and N_h run over all four gates. If units were removed, their zeros still count in every mean and variance: a norm
divides by the number of units that the layer was built with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from compressor.nn.recurrent.packed import packed_like

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EPS = 1e-5
_GATES = 4


def layer_norm_lstm_step(x: Tensor, states: Sequence[Tensor], weights: Mapping[str, Tensor]) -> list[Tensor]:
    """One step.

    Args:
        x: (B, I).
        states: h and c, (B, H) each.
        weights: `weight_ih` (4 H, I), `weight_hh` (4 H, H), scales and, if there are any, shifts of the three norms
            (`scale_ih`, `shift_ih` (4 H,), `scale_hh`, `shift_hh`, `scale_c`, `shift_c` (H,)), and `norm_width`, the H
            that they were built with.

    Returns:
        The new h and c.
    """
    width = weights["norm_width"]
    from_input = _normalised(x @ weights["weight_ih"].t(), "ih", weights, _GATES * width)
    from_state = _normalised(states[0] @ weights["weight_hh"].t(), "hh", weights, _GATES * width)
    i, f, g, o = (from_input + from_state).chunk(_GATES, -1)
    c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(_normalised(c, "c", weights, width)), c]


def _normalised(x: Tensor, name: str, weights: Mapping[str, Tensor], width: Tensor) -> Tensor:
    """Layer normalisation over `width` features, of which those that are missing in x (..., n) are 0."""
    mean = x.sum(-1, keepdim=True) / width
    centred = x - mean
    variance = (centred.square().sum(-1, keepdim=True) + (width - x.shape[-1]) * mean.square()) / width
    y = centred / torch.sqrt(variance + _EPS) * weights[f"scale_{name}"]
    shift = weights.get(f"shift_{name}")
    return y if shift is None else y + shift


_SIZES = {"ih": _GATES, "hh": _GATES, "c": 1}
"""Norm -> what it normalises, in hidden sizes."""


def _add_norms(module: nn.Module, hidden_size: int, suffix: str, bias: bool, **factory: Any) -> None:
    for name, count in _SIZES.items():
        ones = torch.ones(count * hidden_size, **factory)
        module.register_parameter(f"scale_{name}{suffix}", nn.Parameter(ones))
        module.register_parameter(f"shift_{name}{suffix}", nn.Parameter(torch.zeros_like(ones)) if bias else None)
    module.register_buffer(f"norm_width{suffix}", torch.tensor(float(hidden_size), **factory))


def _weights_of(module: nn.Module, suffix: str) -> dict[str, Tensor]:
    norms = (f"{kind}_{name}" for kind in ("scale", "shift") for name in _SIZES)
    names = ("weight_ih", "weight_hh", *norms, "norm_width")
    return {name: tensor for name in names if (tensor := getattr(module, name + suffix)) is not None}


class LayerNormLSTM(nn.RNNBase):
    """A layer for whole sequences, with the arguments, states and results of `nn.LSTM` (there is no projection)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See `nn.LSTM`; with `bias`, the norms have a shift."""
        super().__init__(
            "LSTM", input_size, hidden_size, num_layers, False, batch_first, dropout, bidirectional, 0, device, dtype
        )
        self.mode, self.bias = "LAYER_NORM_LSTM", bias
        for suffix in self._suffixes():
            _add_norms(self, hidden_size, suffix, bias, device=device, dtype=dtype)

    def _suffixes(self) -> list[str]:
        """What the names of each layer and direction end in, in the order of `h_n`."""
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [f"_l{layer}{end}" for layer in range(self.num_layers) for end in ends]

    def flatten_parameters(self) -> None:
        """There is no kernel that wants the weights in one piece."""

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> Any:  # noqa: A002 PyTorch's name for it
        """Run over a sequence.

        Args:
            input: (T, B, F), (B, T, F) with `batch_first`, unbatched (T, F), or a `PackedSequence`.
            hx: h_0 and c_0, (L * D, B, H) each, without B if the input is unbatched; zeros by default.

        Returns:
            The outputs of the last layer in the form of `input`, and (h_n, c_n).
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx)
        batched = input.dim() == 3
        swap = batched and self.batch_first
        sequence = input.transpose(0, 1) if swap else input if batched else input.unsqueeze(1)  # (T, B, F)
        given = hx if hx is None or batched else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
        output, states = self._run(sequence, given, None)
        if not batched:
            return output.squeeze(1), (states[0].squeeze(1), states[1].squeeze(1))
        return (output.transpose(0, 1) if swap else output), states

    def _forward_packed(self, packed: PackedSequence, hx: tuple[Tensor, Tensor] | None) -> Any:
        sequence, lengths = pad_packed_sequence(packed)  # (T, B, F)
        valid = torch.arange(len(sequence))[:, None] < lengths  # (T, B)
        output, states = self._run(sequence, hx, valid.to(sequence.device).unsqueeze(-1))
        return packed_like(packed, output, lengths), states

    def _run(
        self, sequence: Tensor, hx: tuple[Tensor, Tensor] | None, valid: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """All layers over (T, B, F); `valid` (T, B, 1) is False past the end of a sequence."""
        count, last = 2 if self.bidirectional else 1, []
        for layer in range(self.num_layers):
            if layer:
                sequence = nn.functional.dropout(sequence, self.dropout, self.training)
            outputs = []
            for direction in range(count):
                index = layer * count + direction
                zeros = sequence.new_zeros(sequence.shape[1], self.hidden_size)
                states = [zeros, zeros] if hx is None else [kind[index] for kind in hx]
                output, states = self._run_part(index, direction == 1, sequence, states, valid)
                outputs.append(output)
                last.append(states)
            sequence = torch.cat(outputs, -1) if count > 1 else outputs[0]
        h, c = (torch.stack(kind) for kind in zip(*last, strict=True))
        return sequence, (h, c)

    def _run_part(
        self, index: int, backward: bool, sequence: Tensor, states: list[Tensor], valid: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """One layer in one direction: its outputs (T, B, H), 0 past the end of a sequence, and its last states."""
        weights = _weights_of(self, self._suffixes()[index])
        if backward:
            sequence, valid = sequence.flip(0), None if valid is None else valid.flip(0)
        outputs = []
        for position in range(sequence.shape[0]):
            new = layer_norm_lstm_step(sequence[position], states, weights)
            if valid is None:
                states = new
                outputs.append(new[0])
            else:
                runs = valid[position]
                states = [torch.where(runs, after, before) for after, before in zip(new, states, strict=True)]
                outputs.append(new[0] * runs)
        output = torch.stack(outputs)
        return output.flip(0) if backward else output, states


class LayerNormLSTMCell(nn.RNNCellBase):
    """One step, with the arguments, states and results of `nn.LSTMCell`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """See `nn.LSTMCell`; with `bias`, the norms have a shift."""
        super().__init__(input_size, hidden_size, False, _GATES, device, dtype)
        self.bias = bias
        _add_norms(self, hidden_size, "", bias, device=device, dtype=dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:  # noqa: A002
        """One step: (B, I) or (I,), and h and c of the same form, to the new h and c."""
        zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
        h, c = layer_norm_lstm_step(input, (zeros, zeros) if hx is None else hx, _weights_of(self, ""))
        return h, c
