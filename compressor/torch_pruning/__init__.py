"""Recurrent layers for Torch-Pruning: working pruners of `RNN`, `GRU`, `LSTM` and their cells, for its scripts.

Torch-Pruning 1.6.1 cuts wrong axes of an `LSTM` and leaves `RNN` and `GRU` alone; its dependency graph follows
autograd through the first output of a layer, so it does not see `h_n` and `c_n`. Two lines fix that in any script::

    from compressor.torch_pruning import recurrent, RecurrentMagnitudeImportance, step

    pruner = tp.pruner.MetaPruner(
        model, x, importance=RecurrentMagnitudeImportance(), pruning_ratio=0.5, **recurrent(model)
    )
    step(pruner)  # pruner.step(), with every removal compared with the silenced original

Needs the extra `torch-pruning`.
"""

from compressor.torch_pruning.compared import step
from compressor.torch_pruning.importance import RecurrentMagnitudeImportance
from compressor.torch_pruning.pruners import RecurrentPruner, recurrent

__all__ = ["RecurrentMagnitudeImportance", "RecurrentPruner", "recurrent", "step"]
