"""Shrinks trained sequence models and ships them to phones.

`Task` is what a task file subclasses, `AttentionParts` how it names attention that is not PyTorch's; `load_weights`
reads a checkpoint safely; `load` gives a compressed model back.
"""

from compressor.checkpoint import load
from compressor.errors import CompressorError
from compressor.nn.attention.parts import AttentionParts
from compressor.task.contract import Evaluation, Task
from compressor.task.weights import load_module, load_weights

__version__ = "0.1.0"
__all__ = [
    "AttentionParts",
    "CompressorError",
    "Evaluation",
    "Task",
    "__version__",
    "load",
    "load_module",
    "load_weights",
]
