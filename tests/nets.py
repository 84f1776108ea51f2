"""Small models that many tests take."""

from torch import nn


class Scores(nn.Module):
    """A GRU and a Linear on every step: (B, T, inputs) -> (B, T, classes)."""

    def __init__(self, inputs, units, classes):
        super().__init__()
        self.rnn = nn.GRU(inputs, units, batch_first=True)
        self.head = nn.Linear(units, classes)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Outputs(nn.Module):
    """A recurrent layer without its states."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class First(nn.Module):
    """The first of several outputs."""

    def forward(self, outputs):
        return outputs[0]
