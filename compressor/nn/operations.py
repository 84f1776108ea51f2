"""Sees the tensor operations of a forward pass one by one, below autograd."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """A dispatch mode that is cheap to enter: a subclass gives `__torch_dispatch__`, and is active within a `with`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not wrapped for torch.compile, which is never used here and whose import takes seconds."""
        return False

    def __init__(self) -> None:
        """Do nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
