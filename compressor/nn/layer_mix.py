"""Layers one behind the other, and a linear map behind them that hears the last one or all.

Source: Tang and Yang, arXiv 2409.02727 (pooling over all layers' outputs). Their head is attention over means of
layers; this one is linear, so it is the same in front of a mean over positions as behind it, whatever the model's own
pooling is, and starts as the last layer alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class LayerMix(nn.Module):
    """x_k = f_k(x_{k-1}, ...) for k = 1 .. K; W x_K + c comes out, or W [x_0, .., x_K] + c with W (E, (K + 1) E)."""

    def __init__(
        self, layers: Sequence[nn.Module], width: int, *, hears_all: bool, device: Any = None, dtype: Any = None
    ) -> None:
        """With W and c at which x_K comes out.

        Args:
            layers: f_1 .. f_K: a tensor (..., E) as first argument, one of the same shape out, alone or in a tuple of
                one.
            width: E.
            hears_all: W reads all layers' outputs, and x_0.
            device: Of W and c.
            dtype: Of W and c.
        """
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.hears_all = hears_all
        self.mix = nn.Linear(width * (1 + len(layers) * hears_all), width, device=device, dtype=dtype)
        with torch.no_grad():
            self.mix.weight.zero_()
            self.mix.weight[:, -width:].fill_diagonal_(1.0)
            self.mix.bias.zero_()

    def __getattr__(self, name: str) -> Any:
        """What the model reads of its layers (`nn.TransformerEncoder` reads `self_attn`), it reads of f_1."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            layers: Any = super().__getattr__("layers")
            return getattr(layers[0], name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As f's; all further arguments are the same in all layers."""
        heard, wrapped = [x], False
        for layer in self.layers:
            y = layer(heard[-1], *args, **kwargs)
            wrapped = isinstance(y, tuple)
            heard.append(y[0] if wrapped else y)
        mixed = self.mix(torch.cat(heard, -1) if self.hears_all else heard[-1])
        return (mixed,) if wrapped else mixed
