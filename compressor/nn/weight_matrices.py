"""The weight matrices of a model's layers: the one list of what rounding is about, in training and in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from torch import nn

from compressor.nn.recurrent.layers import RECURRENT

Use = Literal["product", "table", "convolution"]
_USES: Final[tuple[tuple[Use, tuple[type[nn.Module], ...]], ...]] = (
    ("product", (*RECURRENT, nn.Linear, nn.MultiheadAttention)),
    ("table", (nn.Embedding,)),
    ("convolution", (nn.Conv1d, nn.Conv2d, nn.Conv3d)),
)


@dataclass(frozen=True)
class WeightMatrix:
    """A weight of two or more axes."""

    parameter: nn.Parameter
    use: Use
    """What it is for. Of fewer than 8 bits, only products have them."""


def weight_matrices(model: nn.Module) -> dict[str, WeightMatrix]:
    """Weights of recurrent layers, Linear, multi-head attention, Embedding and convolutions, by name.

    A weight that several layers share is there once, under the first of its names.
    """
    found: dict[str, WeightMatrix] = {}
    known: set[int] = set()
    for path, module in model.named_modules():
        use = next((use for use, kinds in _USES if isinstance(module, kinds)), None)
        for name, parameter in module.named_parameters(recurse=False) if use is not None else ():
            if use is None or parameter.dim() < 2 or id(parameter) in known:
                continue
            known.add(id(parameter))
            found[f"{path}.{name}" if path else name] = WeightMatrix(parameter, use)
    return found
