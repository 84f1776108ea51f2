"""A finite automaton as a model: integer tables instead of weights, one look-up for each symbol of a string."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from compressor.nn.record import LayerRecord, RecordedLayer, Size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions


class AutomatonRecord(LayerRecord):
    """What an `Automaton` is built from."""

    symbols: Size
    classes: Size
    states: Size
    outputs: Size
    each: bool


class AutomatonStep(nn.Module):
    """One symbol: the next state."""

    def __init__(self, symbols: int, classes: int, states: int, device: torch.device | str | None) -> None:
        """With empty tables; the arguments are those of `Automaton`."""
        super().__init__()
        self.class_count = classes
        self.classes = nn.Parameter(torch.zeros(symbols, dtype=torch.int64, device=device), requires_grad=False)
        self.next = nn.Parameter(torch.zeros(states * classes, dtype=torch.int64, device=device), requires_grad=False)

    def forward(self, symbol: Tensor, state: Tensor) -> Tensor:
        """Symbols (B,) and states (B,) to new states (B,)."""
        place = state * self.class_count + self.classes.index_select(0, symbol)
        return self.next.index_select(0, place)


class Automaton(RecordedLayer):
    """Strings of symbols to the outputs of the states that they lead to.

    s_0 = 0, s_t = next[s_{t-1} * K + classes[x_t]], y = outputs[s_T], or outputs[s_t] for each t. Symbols that act
    alike are one of the K classes. The tables are parameters that are not trained.
    """

    record_type = AutomatonRecord

    def __init__(
        self,
        symbols: int,
        classes: int,
        states: int,
        outputs: int,
        *,
        each: bool,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Build it with empty tables.

        Args:
            symbols: V, symbols are 0 .. V - 1.
            classes: K, classes of symbols.
            states: S.
            outputs: C, numbers that come out.
            each: An output for each symbol (B, T, C), not for the whole string (B, C).
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.each = each
        self.step = AutomatonStep(symbols, classes, states, factory.get("device"))
        self.outputs = nn.Parameter(torch.zeros(states, outputs, **factory), requires_grad=False)

    @classmethod
    def from_tables(
        cls, classes: Sequence[int], table: Sequence[Sequence[int]], outputs: Tensor, *, each: bool
    ) -> Automaton:
        """From the class of each symbol, the next state for each state and class (S, K), and the outputs (S, C)."""
        automaton = cls(len(classes), len(table[0]), len(table), outputs.shape[1], each=each, dtype=outputs.dtype)
        with torch.no_grad():
            automaton.step.classes.copy_(torch.tensor(classes))
            automaton.step.next.copy_(torch.tensor(table).flatten())
            automaton.outputs.copy_(outputs)
        return automaton.eval()

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds an automaton of these sizes."""
        states, outputs = self.outputs.shape
        return AutomatonRecord(
            symbols=len(self.step.classes),
            classes=self.step.class_count,
            states=states,
            outputs=outputs,
            each=self.each,
        ).model_dump()

    def forward(self, symbols: Tensor) -> Tensor:
        """Strings (B, T) of integers to (B, C), or (B, T, C)."""
        state: Tensor = torch.zeros_like(symbols[:, 0], dtype=torch.int64)
        states = []
        for position in range(symbols.shape[1]):
            state = self.step(symbols[:, position], state)
            states.append(state)
        if not self.each:
            return self.outputs.index_select(0, state)
        every = torch.stack(states, 1)  # (B, T)
        chosen: Tensor = self.outputs.index_select(0, every.flatten()).unflatten(0, every.shape)
        return chosen
