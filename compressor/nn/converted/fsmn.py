r"""Feedforward sequential memory (FSMN): filters over time instead of a recurrence.

A layer projects its input to P channels, each of which has a memory: a finite filter over its own past.

.. math::
    p_t = V x_t + b, \quad m_t = p_t + \sum_{i=0}^{N-1} a_i \odot p_{t-id} + \sum_{j=1}^{L} a_{-j} \odot p_{t+jd}, \quad
    u_t = \mathrm{relu}(U m_t + c), \quad y_t = W u_t + e

with order N, dilation d and look-ahead L, and a vector :math:`a_i` of one number for each channel: a depthwise
convolution. With several dilations the memories follow one another, each on top of the one before:
:math:`p^{(k+1)}_t = m^{(k)}_t + V^{(k+1)} u^{(k)}_t`. An output depends on the :math:`\sum_k (N - 1) d_k` positions
before it and on none earlier.

Source: Zhang et al., "Compact feedforward sequential memory networks", Interspeech 2016 (projection and memory), and
"Deep-FSMN", arXiv 1803.05030 (skips between memories); MossFormer2 (arXiv 2312.11825, section 2.3) uses the same memory
as its recurrent module. There is no normalisation over time, so a stream computes what the whole sequence gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.nn.converted.layer import SequenceLayer
from compressor.nn.converted.starts import start_channels, start_units
from compressor.nn.record import LayerRecord, Size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.factory import FactoryOptions

LONGEST_ORDER = 1024
LARGEST_DILATION = 4096
_FASTEST = 1.0
"""Positions after which the fastest memory has faded to 1/e at the start; the slowest takes its whole order."""


class FsmnRecord(LayerRecord):
    """What an `FsmnLayer` is built from."""

    input_size: Size
    output_size: Size
    projection: Size
    hidden: Size
    order: Annotated[int, Field(ge=2, le=LONGEST_ORDER)]
    dilations: Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_DILATION)]], Field(min_length=1, max_length=64)]
    lookahead: Annotated[int, Field(ge=0, le=LONGEST_ORDER)]


class FsmnLayer(SequenceLayer):
    """One FSMN layer: `project` -> (`memories` -> `expand` -> relu -> `back`)* -> `readout`."""

    label = "FSMN"
    record_type = FsmnRecord

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        projection: int,
        hidden: int,
        order: int,
        dilations: Sequence[int],
        lookahead: int = 0,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """With PyTorch's initial weights.

        Args:
            input_size: I.
            output_size: O.
            projection: P, channels that have a memory.
            hidden: Units of `relu` behind each memory.
            order: N, the positions that a memory filters, the current one among them; >= 2.
            dilations: Distance between these positions, for each memory.
            lookahead: L, later positions that each memory filters too.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.order, self.taps_ahead, self.dilations = order, lookahead, tuple(dilations)
        self.project = nn.Linear(input_size, projection, **factory)
        self.memories = nn.ModuleList(
            nn.Conv2d(
                projection,
                projection,
                (order + lookahead, 1),
                dilation=(dilation, 1),
                groups=projection,
                bias=False,
                **factory,
            )
            for dilation in dilations
        )
        self.expand = nn.ModuleList(nn.Linear(projection, hidden, **factory) for _ in dilations)
        self.back = nn.ModuleList(nn.Linear(hidden, projection, bias=False, **factory) for _ in dilations[1:])
        self.readout = nn.Linear(hidden, output_size, **factory)

    def own_fields(self) -> dict[str, Any]:
        """See `SequenceLayer`."""
        taps = {"order": self.order, "dilations": list(self.dilations), "lookahead": self.taps_ahead}
        return {"projection": self.project.out_features, **taps}

    @classmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {"projection": max(1, width // 2), "order": 20, "dilations": [1], "lookahead": 0}

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        dilations = ", ".join(map(str, record["dilations"]))
        return f"order {record['order']}, dilations {dilations}"

    @property
    def memory(self) -> int:
        """See `SequenceLayer`."""
        return sum((self.order - 1) * dilation for dilation in self.dilations)

    @property
    def lookahead(self) -> int:  # type: ignore[override]
        """See `SequenceLayer`."""
        return sum(self.taps_ahead * dilation for dilation in self.dilations)

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`."""
        p = self.project(x)  # (B, T, P)
        for index, dilation in enumerate(self.dilations):
            if valid is not None and self.taps_ahead:
                p = p * valid  # what comes behind a sequence must not be seen from inside it
            channels = p.transpose(1, 2).unsqueeze(-1)  # (B, P, T, 1)
            edges = (0, 0, (self.order - 1) * dilation, self.taps_ahead * dilation)
            p, features = self._remember(index, p, nn.functional.pad(channels, edges))
        return features

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """The last (N - 1) d values of each memory's channels: (1, P, (N - 1) d)."""
        weight = self.project.weight
        widths = [(self.order - 1) * dilation for dilation in self.dilations]
        few = len(widths) == 1
        return [
            ("memory" if few else f"memory.{index}", weight.new_zeros(1, weight.shape[0], width))
            for index, width in enumerate(widths)
        ]

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`; there is none with a look-ahead."""
        p, new = self.project(x), []  # (B, n, P)
        for index, state in enumerate(states):
            window = torch.cat([state, p.transpose(1, 2)], 2)  # (B, P, (N - 1) d + n)
            new.append(window[:, :, x.shape[1] :])
            p, features = self._remember(index, p, window.unsqueeze(-1))
        return features, new

    def _remember(self, index: int, p: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """One memory and the units behind it: what the next memory is given (B, T, P), and the units (B, T, N).

        Args:
            index: Which memory.
            p: (B, T, P).
            window: The same channel by channel with what lies before and behind, (B, P, ..., 1).
        """
        remembered = p + self.memories[index](window).squeeze(-1).transpose(1, 2)  # (B, T, P)
        units = torch.relu(self.expand[index](remembered))  # (B, T, N)
        last = index == len(self.dilations) - 1
        return remembered if last else remembered + self.back[index](units), units

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        r"""Channels along the directions of the inputs that drive the old layer most, with memories from short to long.

        The directions are the eigenvectors of D^T D in inputs of unit variance, D the `drive`. They are repeated until
        all channels have one, each time with memories that fade more slowly: :math:`a_i = e^{-i / \tau}` over their
        sum, :math:`\tau` from one position to the order. The units read random directions in pairs, w and -w, so that
        their differences carry all channels as they are.
        """
        spread = start_channels(self.project, x, drive)
        with torch.no_grad():
            self._start_memories(spread)
            for linear in self.back:
                linear.weight.zero_()  # type: ignore[operator]
        for units in self.expand:
            assert isinstance(units, nn.Linear)
            start_units(units, generator)

    def _start_memories(self, spread: int) -> None:
        """Fill `memories`: channel c has the time constant number c // spread."""
        channels = self.project.out_features
        turns = torch.arange(channels, dtype=torch.float64) // spread  # (P,)
        most = max(1.0, float(turns.max()))
        constants = _FASTEST * (self.order / _FASTEST) ** (turns / most)  # (P,)
        ages = torch.arange(self.order - 1, -1, -1, dtype=torch.float64)  # of the taps, the oldest first
        taps = torch.exp(-ages / constants[:, None])  # (P, N)
        taps = taps / taps.sum(1, keepdim=True)
        ahead = torch.exp(-torch.arange(1, self.taps_ahead + 1, dtype=torch.float64) / constants[:, None])
        ahead = ahead / ahead.sum(1, keepdim=True).clamp_min(1e-9)
        for memory in self.memories:
            memory.weight.copy_(torch.cat([taps, ahead], 1)[:, None, :, None])  # type: ignore[operator]

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"order={self.order}, dilations={list(self.dilations)}, lookahead={self.taps_ahead}"
