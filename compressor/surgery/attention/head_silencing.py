"""A model in which removed heads add nothing, as the reference for the model without them."""

from __future__ import annotations

import inspect
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from compressor.nn.attention.compact import CompactMultiheadAttention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from compressor.surgery.attention.removable_heads import HeadCut


@contextmanager
def silenced(cut: HeadCut) -> Iterator[None]:
    """The removed heads add nothing to the output while this lasts, and averages of weights leave them out."""
    saved = []
    with ExitStack() as stack:
        try:
            for name, site in cut.sites.items():
                weight, stays = cut.model.get_parameter(site.output.weight).detach(), cut.heads[name]
                columns = (~stays.repeat_interleave(site.output.width)).nonzero().flatten()
                saved.append((weight, columns, weight.index_select(1, columns)))
                weight.index_fill_(1, columns, 0.0)
                module = cut.model.get_submodule(name)
                if isinstance(module, CompactMultiheadAttention):
                    stack.enter_context(_averaging(module, stays))
            yield
        finally:
            for weight, columns, values in saved:
                weight.index_copy_(1, columns, values)


@contextmanager
def _averaging(module: CompactMultiheadAttention, stays: Tensor) -> Iterator[None]:
    """The mean of the attention weights is taken over these heads only while this lasts."""
    original: Callable[..., tuple[Tensor, Tensor | None]] = module.forward
    signature = inspect.signature(original)

    def averaged(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        arguments = signature.bind(*args, **kwargs).arguments
        output, weights = original(**(arguments | {"average_attn_weights": False}))
        return output, None if weights is None else weights[..., stays, :, :].mean(-3)

    module.forward = averaged  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward
