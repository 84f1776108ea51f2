"""What PyTorch prepares before it decomposes a program, with less work.

Before each decomposition it replaces what some 800 operators compute, and back afterwards: a fixed cost of 0.2 s, more
than the decomposition of a small model. Half of that goes into looking up all operators once for each of 19 namespaces,
and into types in annotations, of which it makes 23,000 that nothing reads.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exporters.capture.function_library import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    Program = torch.export.ExportedProgram

_LOOK_UP = "_materialize_cpp_cia_ops"


def decomposed(program: Program, table: Mapping[Any, Callable[..., Any]]) -> Program:
    """What `program.run_decompositions` gives.

    Args:
        program: Traced by `torch.export`.
        table: Operator -> how it is decomposed.
    """
    with _brief():
        after: Program = program.run_decompositions(dict(table))
    return after


@contextlib.contextmanager
def _brief() -> Iterator[None]:
    """Within the block, operators are looked up once, and those annotations are left out.

    There is no public setting for either. With a version of PyTorch that prepares otherwise, exports are slower and the
    same.
    """
    import torch._export.utils
    import torch._ops

    with contextlib.ExitStack() as stack:
        look_up = vars(torch._export.utils).get(_LOOK_UP)
        if look_up is not None:
            stack.enter_context(replaced(torch._export.utils, _LOOK_UP, functools.cache(look_up)))
        if vars(torch._ops).get("Callable") is Callable:
            stack.enter_context(replaced(torch._ops, "Callable", _AnyCallable))
        yield


class _Unread(type):
    """Of a class that stands for `Callable` where its parameters are not read."""

    def __getitem__(cls, parameters: Any) -> _Unread:
        return cls

    def __instancecheck__(cls, instance: Any) -> bool:
        return callable(instance)


class _AnyCallable(metaclass=_Unread):
    """All that can be called."""
