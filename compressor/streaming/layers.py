"""The layers that look back, and how a model runs with other code instead of their `forward`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.forwards import replaced_forwards
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.layers import LAYERS, STEP_MODULES

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

Inputs = tuple[Tensor, ...]
RECURRENT: tuple[type[nn.Module], ...] = (*LAYERS, LowRankRecurrent)
CACHED = (nn.MultiheadAttention, CompactMultiheadAttention)
ATTENTION: tuple[type[nn.Module], ...] = (*CACHED, AarenAttention)
STATEFUL: tuple[type[nn.Module], ...] = (*RECURRENT, *STEP_MODULES, *ATTENTION, LearnedQuery, ConvertedRecurrent)
"""Layers of other classes, such as `UnevenRecurrent` and `GraphRecurrent`, consist of these."""
WINDOWED = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers that look back if they run over time."""
LEAVE_OUT = "or leave `stream` out"
"""How the hint of a refusal ends."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def get(self, place: int, name: str, default: Any = None) -> Any:
        """The argument at a place, or of that name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


class Interceptor(Protocol):
    """Is called instead of a stateful layer's `forward`."""

    def __call__(self, name: str, module: nn.Module, original: Callable[..., Any], call: Arguments) -> Any:
        """What the layer's `forward` has to return."""


@contextmanager
def intercepted(model: nn.Module, interceptor: Interceptor, own: Container[str] = ()) -> Iterator[None]:
    """Within the block, `interceptor` runs the stateful layers of `model`; all other layers work as always.

    See `replaced_forwards`.

    Args:
        model: Any model.
        interceptor: Is called instead.
        own: Names of modules of the model's own code that it runs as well.
    """
    # torch.export hands out a layer that has several names as several objects with the same attributes
    names: dict[int, str] = {}
    kinds = dict.fromkeys((*STATEFUL, *WINDOWED))
    for name, module in model.named_modules():
        if isinstance(module, (*STATEFUL, *WINDOWED)) or name in own:
            names.setdefault(id(vars(module)), name)
        if name in own:
            kinds[type(module)] = None

    def dispatcher(original: Any) -> Any:
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(vars(self)) not in names:
                return original(self, *args, **kwargs)
            return interceptor(names[id(vars(self))], self, original, Arguments(args, kwargs))

        return forward

    with replaced_forwards(dict.fromkeys(kinds, dispatcher)):
        yield
