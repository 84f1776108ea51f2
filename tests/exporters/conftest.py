from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from torch import nn

from compressor.testing import RandomTask, normal

_EXAMPLES = int(os.environ.get("EXAMPLES", "3"))
FEW_EXPORTS = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    derandomize=_EXAMPLES == 3,
    phases=[Phase.explicit, Phase.generate],  # an export takes seconds, and shrinking hundreds of them
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""Of tests that export a random model in each example; the variable `EXAMPLES` asks for more."""
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
