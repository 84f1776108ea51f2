"""Recurrent layers and a Linear behind them, with random weights: speed and size do not depend on these."""

from __future__ import annotations

from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Net(nn.Module):
    """(B, T, inputs) -> (B, T, classes), or (B, classes) of the last step alone."""

    def __init__(self, cell: str, inputs: int, hidden: int, layers: int, classes: int, *, last: bool = False) -> None:
        """`cell` is a word of `CELLS`."""
        super().__init__()
        self.rnn = CELLS[cell](inputs, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)
        self.last = last

    def forward(self, features: Tensor) -> Tensor:
        """Scores."""
        outputs = self.rnn(features)[0]
        scores: Tensor = self.head(outputs[:, -1] if self.last else outputs)
        return scores
