r"""Diagonal GRU and LSTM (ParaRNN): a unit sees its own state only, so that all positions are trained at once.

.. math::
    z, r = \sigma(a \odot h' + B x + b), \quad c = \tanh(a_c \odot (r \odot h') + B_c x + b_c), \quad
    h = (1 - z) \odot h' + z \odot c

for the GRU, with vectors a instead of recurrent matrices; and for the LSTM, with peepholes p and an input gate 1 - f,

.. math::
    f = \sigma(a_f \odot h' + p_f \odot c' + B_f x + b_f), \quad z = \tanh(a_z \odot h' + B_z x + b_z), \quad
    c = f \odot c' + (1 - f) \odot z,

    o = \sigma(a_o \odot h' + p_o \odot c + B_o x + b_o), \quad h = o \odot \tanh(c)

All a and p are :math:`k \tanh(w)` of a parameter w, so none is larger than the `clip` k: on that Newton's method
depends. A linear readout mixes the units.

Source: ParaRNN, arXiv 2510.21450, section 4 (the cells) and 3 (the training form, see `parallel`). The paper clips the
norm of a; B is dense here, not in blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Unpack

import torch
from pydantic import Field
from torch import Tensor, nn

from compressor.nn.converted.diagonal_cells import gru, lstm
from compressor.nn.converted.layer import SequenceLayer, is_traced
from compressor.nn.converted.parallel import MOST_ITERATIONS, Solved, shifted, solve, with_gradients
from compressor.nn.record import LayerRecord, Size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.nn.factory import FactoryOptions

Cell = Literal["gru", "lstm"]
_GATES, _DIAGONALS, _STATES = 3, {"gru": 3, "lstm": 5}, {"gru": 1, "lstm": 2}
_LONGEST = 100.0
"""Positions over which the slowest unit averages at the start."""
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Of Newton's last correction: the error that is left is far below it."""


class ParaRecord(LayerRecord):
    """What a `ParaLayer` is built from."""

    input_size: Size
    output_size: Size
    hidden: Size
    cell: Cell
    clip: Annotated[float, Field(gt=0.0, le=4.0, allow_inf_nan=False)]


class ParaLayer(SequenceLayer):
    """`project` to three gates, the diagonal recurrence, `readout`."""

    label = "diagonal RNN"
    record_type = ParaRecord
    inner_widths = ("hidden",)

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        hidden: int,
        cell: Cell = "gru",
        clip: float = 0.5,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """With small random diagonals, and units that average over 1 to 100 positions.

        Args:
            input_size: I.
            output_size: O.
            hidden: N, the units.
            cell: Which.
            clip: Largest magnitude of the diagonals.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.cell, self.clip = cell, clip
        self.project = nn.Linear(input_size, _GATES * hidden, **factory)
        for index in range(_DIAGONALS[cell]):
            self.register_parameter(f"diagonal_{index}", nn.Parameter(torch.empty(hidden, **factory).normal_(std=0.1)))
        self.readout = nn.Linear(hidden, output_size, **factory)
        with torch.no_grad():
            self.project.bias[:hidden] = self._leak(hidden).to(self.project.bias)

    def own_fields(self) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {"cell": self.cell, "clip": self.clip}

    @classmethod
    def own_usual(cls, width: int) -> dict[str, Any]:
        """See `SequenceLayer`."""
        return {"cell": "gru", "clip": 0.5}

    @classmethod
    def described(cls, record: Mapping[str, Any]) -> str:
        """See `SequenceLayer`."""
        return f"diagonal {record['cell'].upper()}, clip {record['clip']:g}"

    @property
    def diagonals(self) -> list[nn.Parameter]:
        """The w of every a and p, (N,) each, in the order of `diagonal_cells`."""
        return [getattr(self, f"diagonal_{index}") for index in range(_DIAGONALS[self.cell])]

    @property
    def memory(self) -> None:
        """See `SequenceLayer`."""
        return

    def features(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """See `SequenceLayer`: all positions at once if there are gradients to compute, else one after the other."""
        gates = self.project(x)
        if torch.is_grad_enabled() and not is_traced():
            return self.in_parallel(gates)
        return self.in_order(gates, self.zeros(x.shape[0]))[0]

    def zeros(self, batch: int) -> list[Tensor]:
        """The states (B, N) before the first position."""
        return [value.expand(batch, -1) for _, value in self.initial_states()]

    def initial_states(self) -> list[tuple[str, Tensor]]:
        """`h` (1, N), and `c` of an LSTM."""
        weight = self.readout.weight
        names = ("h", "c")[: _STATES[self.cell]]
        return [(name, weight.new_zeros(1, weight.shape[1])) for name in names]

    def step_features(self, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """See `SequenceLayer`."""
        return self.in_order(self.project(x), states)

    def in_order(self, gates: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The recurrence, one position after the other.

        Args:
            gates: What `project` gives (B, T, 3 N).
            states: Before the first position, (B, N) each.

        Returns:
            The outputs (B, T, N), and the last states.
        """
        now, diagonals, outputs = list(states), self._diagonals(), []
        for position in range(gates.shape[1]):
            now, _ = self._update(now, gates[:, position].chunk(_GATES, -1), diagonals)
            outputs.append(now[0])
        return torch.stack(outputs, 1), now

    def in_parallel(self, gates: Tensor) -> Tensor:
        """The same from states of zeros, all positions at once: the outputs (B, T, N), with gradients."""
        fixed, held = self._fixed(gates)
        solved = self.newton(gates)
        tolerance = _TOLERANCE.get(gates.dtype, 1e-3)
        with torch.no_grad():
            states = solved.states if solved.residual <= tolerance else self._one_by_one(fixed, held)
            before = shifted(states)
            jacobians = self._whole(before, fixed, held)[1]
        parts = gates.transpose(0, 1).chunk(_GATES, -1)  # (T, B, N) each
        after, _ = self._update(list(before.unbind(2)), parts, self._diagonals())
        return with_gradients(torch.stack(after, 2), jacobians)[:, :, 0].transpose(0, 1)

    def newton(self, gates: Tensor, most: int = MOST_ITERATIONS) -> Solved:
        """The states of all positions, of gates (B, T, 3 N), by at most so many iterations from f(0, x_t)."""
        fixed, held = self._fixed(gates)
        zeros = torch.zeros_like(fixed[0]).unsqueeze(2).expand(-1, -1, _STATES[self.cell], -1)
        with torch.no_grad():
            first = self._whole(zeros, fixed, held)[0]
            return solve(
                lambda before: self._whole(before, fixed, held), first, _TOLERANCE.get(gates.dtype, 1e-3), most
            )

    def _fixed(self, gates: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gates (T, B, N) each and diagonals, without gradients."""
        parts = gates.detach().transpose(0, 1).chunk(_GATES, -1)
        return list(parts), [diagonal.detach() for diagonal in self._diagonals()]

    def _whole(self, before: Tensor, gates: Sequence[Tensor], diagonals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The states after every position and J, from the states (T, B, S, N) before it."""
        after, jacobians = self._update(list(before.unbind(2)), gates, diagonals, jacobians=True)
        assert jacobians is not None
        return torch.stack(after, 2), jacobians

    def _one_by_one(self, gates: Sequence[Tensor], diagonals: Sequence[Tensor]) -> Tensor:
        """The states (T, B, S, N) where Newton's method does not get there: it never did for a clip up to 0.9."""
        now = [torch.zeros_like(gates[0][0])] * _STATES[self.cell]
        states = []
        for parts in zip(*gates, strict=True):
            now, _ = self._update(now, parts, diagonals)
            states.append(torch.stack(now, 1))
        return torch.stack(states)

    def _diagonals(self) -> list[Tensor]:
        return [self.clip * torch.tanh(weight) for weight in self.diagonals]

    def _update(
        self, states: Sequence[Tensor], gates: Sequence[Tensor], diagonals: Sequence[Tensor], *, jacobians: bool = False
    ) -> tuple[list[Tensor], Tensor | None]:
        """The new states, in the order h, c, of any number of positions, and J (..., S, S, N) if it is asked for."""
        return (gru if self.cell == "gru" else lstm)(states, gates, diagonals, jacobians)

    def start(self, x: Tensor, drive: Tensor, generator: torch.Generator) -> None:
        """Units that read random mixtures of the directions that drive the old layer, and average over 1 to 100 steps.

        Gates see the inputs a little; how long a unit averages is set by the bias of its update (forget) gate.
        """
        units = self.readout.in_features
        x, drive = x.cpu().double(), drive.cpu().double()
        mean, deviation = x.mean(0), x.std(0, unbiased=False).clamp_min(1e-6)
        weights = drive * deviation
        values, vectors = torch.linalg.eigh(weights.T @ weights)
        scales = (values.clamp_min(0) / values.clamp_min(0).sum().clamp_min(1e-12)).sqrt()
        mixed = torch.randn(_GATES, units, len(values), generator=generator, dtype=torch.float64) * scales
        rows = (mixed @ vectors.T) / deviation  # (3, N, I), of about unit variance
        write = 2 if self.cell == "gru" else 1
        gains = torch.full((_GATES,), 0.3, dtype=torch.float64)
        gains[write] = 1.0
        rows = rows * gains[:, None, None]
        bias = torch.zeros(_GATES, units, dtype=torch.float64)
        bias[0] = self._leak(units)
        bias[write] = 0.5 * torch.randn(units, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.project.weight.copy_(rows.flatten(0, 1))
            self.project.bias.copy_(bias.flatten() - rows.flatten(0, 1) @ mean)
            for diagonal in self.diagonals:
                diagonal.copy_(0.1 * torch.randn(units, generator=generator, dtype=torch.float64))

    def _leak(self, units: int) -> Tensor:
        """Biases of the first gate at which units average over 1 to 100 positions, evenly in the logarithm."""
        spans = _LONGEST ** torch.linspace(0.0, 1.0, units, dtype=torch.float64)
        keep = 1.0 - 0.9 / spans  # how much of its state a unit keeps
        memory = torch.log(keep / (1 - keep))
        return -memory if self.cell == "gru" else memory  # z is how much is written, f how much is kept

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.cell}, clip={self.clip}"
