"""Shrinks trained sequence models and ships them to phones.

The commands as functions (`compressor.studies.interface`): `run` compresses a task's model by a recipe, `search` finds
the recipe, `inspect` shows what can be pruned, `export` writes any model to a file that is proven right. `Recipe` is a
recipe as an object, `load_recipe` reads one by name or path. `Task` is what a task file subclasses, `UnlabelledTask`
one without labels, `Call` a call of the model with keyword arguments, `AttentionParts` how it names attention that is
not PyTorch's; `load_weights` reads a checkpoint safely; `load_task` loads a task file; `load` gives a compressed model
back. Each is imported when it is first used: this package itself costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from compressor.version import VERSION

if TYPE_CHECKING:
    from compressor.checkpoint import load
    from compressor.errors import CompressorError
    from compressor.nn.attention.parts import AttentionParts
    from compressor.pipeline.drop_in import export
    from compressor.recipe.loading import load as load_recipe
    from compressor.recipe.model import Recipe
    from compressor.studies.interface import inspect, run, search
    from compressor.task.contract import Evaluation, Task
    from compressor.task.loading import load as load_task
    from compressor.task.signature import Call
    from compressor.task.unlabelled import UnlabelledTask
    from compressor.task.weights import load_module, load_weights

__version__ = VERSION
__all__ = [
    "AttentionParts",
    "Call",
    "CompressorError",
    "Evaluation",
    "Recipe",
    "Task",
    "UnlabelledTask",
    "__version__",
    "export",
    "inspect",
    "load",
    "load_module",
    "load_recipe",
    "load_task",
    "load_weights",
    "run",
    "search",
]

_PLACES = {
    "AttentionParts": "compressor.nn.attention.parts",
    "Call": "compressor.task.signature",
    "CompressorError": "compressor.errors",
    "Evaluation": "compressor.task.contract",
    "Recipe": "compressor.recipe.model",
    "Task": "compressor.task.contract",
    "UnlabelledTask": "compressor.task.unlabelled",
    "export": "compressor.pipeline.drop_in",
    "inspect": "compressor.studies.interface",
    "load": "compressor.checkpoint",
    "load_module": "compressor.task.weights",
    "load_recipe": "compressor.recipe.loading",
    "load_task": "compressor.task.loading",
    "load_weights": "compressor.task.weights",
    "run": "compressor.studies.interface",
    "search": "compressor.studies.interface",
}
_OTHER_NAMES = {"load_recipe": "load", "load_task": "load"}


def __getattr__(name: str) -> Any:
    """Import what is asked for, once."""
    if name not in _PLACES:
        raise AttributeError(f"module `compressor` has no attribute `{name}`")
    value = getattr(import_module(_PLACES[name]), _OTHER_NAMES.get(name, name))
    globals()[name] = value
    return value
