from __future__ import annotations

from torch import nn

from compressor.testing import RandomTask, normal

KINDS = {
    "RNN tanh": (nn.RNN, {"nonlinearity": "tanh"}),
    "RNN relu": (nn.RNN, {"nonlinearity": "relu"}),
    "GRU": (nn.GRU, {}),
    "LSTM": (nn.LSTM, {}),
}
"""PyTorch's recurrent classes and what chooses between their kinds."""


def features_task(outputs=None, **attributes):
    """Features (B, T, 5) in, one output (B, ...) out unless `outputs` says otherwise."""
    return RandomTask(
        {"features": {0: "batch", 1: "time"}},
        outputs or {"scores": {0: "batch"}},
        normal(5),
        **attributes,
    )
