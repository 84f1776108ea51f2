"""Runs models with other code in place of the `forward` of some classes of layers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn


@contextmanager
def replaced_forwards(classes: Sequence[type[nn.Module]], replace: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, `forward` of each class is `replace(its own forward)`.

    It is replaced on the classes and not on the layers, so that a subclass which calls `super().forward` is covered,
    and a model keeps its own modules with all their attributes.
    """
    changed: Sequence[Any] = classes
    originals = [kind.forward for kind in changed]
    for kind, original in zip(changed, originals, strict=True):
        kind.forward = replace(original)
    try:
        yield
    finally:
        for kind, original in zip(changed, originals, strict=True):
            kind.forward = original
