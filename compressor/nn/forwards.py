"""Runs models with other code in place of the `forward` of some classes of layers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn


@contextmanager
def replaced_forwards(replacements: Mapping[type[nn.Module], Callable[[Any], Any]]) -> Iterator[None]:
    """Within the block, `forward` of each class is what its replacement makes of its own `forward`.

    It is replaced on the classes and not on the layers, so that a subclass which calls `super().forward` is covered,
    and a model keeps its own modules with all their attributes.
    """
    originals: dict[Any, Any] = {kind: kind.forward for kind in replacements}
    for kind, original in originals.items():
        kind.forward = replacements[kind](original)
    try:
        yield
    finally:
        for kind, original in originals.items():
            kind.forward = original
