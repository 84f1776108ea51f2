"""What parameters of the model's own code are multiplied with, seen at the operations themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.operations import Operations
from compressor.surgery.units.resize import tensor_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

aten = torch.ops.aten


class Products(Operations):
    """While it is active: the inputs of each product x W^T with a named weight, and the bias that is added in it."""

    def __init__(self, model: nn.Module, weights: Sequence[str]) -> None:
        """Watch these weights (O, I) of a model."""
        super().__init__()
        self.inputs: dict[str, list[Tensor]] = {}
        """Weight -> (N, I) of each product."""
        self._biases: dict[str, set[str | None]] = {}
        self._weights = {tensor_of(model, name).data_ptr(): name for name in weights}
        self._shapes = {name: tensor_of(model, name).shape for name in weights}
        self._parameters = {parameter.data_ptr(): name for name, parameter in model.named_parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is aten.mm.default:
            self._see(args[0], args[1], None)
        elif func is aten.addmm.default:
            self._see(args[1], args[2], self._parameters.get(args[0].data_ptr()))
        return func(*args, **(kwargs or {}))

    def _see(self, x: Tensor, factor: Tensor, bias: str | None) -> None:
        name = self._weights.get(factor.data_ptr())
        if name is not None and factor.shape[::-1] == self._shapes[name]:
            self.inputs.setdefault(name, []).append(x.clone())
            self._biases.setdefault(name, set()).add(bias)

    def bias_of(self, weight: str) -> str | None:
        """The parameter that is added in the same operation as every product of a weight; None if there is no one."""
        biases = self._biases.get(weight, {None})
        return next(iter(biases)) if len(biases) == 1 else None
