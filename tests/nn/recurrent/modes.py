"""PyTorch's recurrent classes by their mode."""

from torch import nn

MODES = {
    "RNN_TANH": nn.RNN,
    "RNN_RELU": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
    "GRU": nn.GRU,
    "LSTM": nn.LSTM,
}
