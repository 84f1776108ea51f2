"""How far a changed model's outputs are from those of the model before, on calibration batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from compressor.errors import MethodError
from compressor.nn.attention.plain import plain_attention
from compressor.surgery.depth.chains import arrange, light_copy
from compressor.surgery.refit.calibration import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.surgery.depth.chains import Chain, Site

_SMALLEST = 1e-30
_OF_EQUAL_METRICS = 1e-9
"""Share of the outputs' error that decides between chains of the same metric."""


class OutputError:
    """The error of outputs: sum of squared differences over the sum of squares around the mean, mean of the outputs.

    0 is the same, 1 is no better than a constant. Outputs that are not numbers with a fraction are left out.
    """

    def __init__(self, model: nn.Module, batches: Sequence[tuple[Tensor, ...]]) -> None:
        """Run the model before the change on the batches, whose outputs are kept in memory.

        Raises:
            MethodError: It gives no tensor of floating type.
        """
        self._batches = batches
        self._wanted = [_outputs(model, inputs) for inputs in batches]
        if not self._wanted or not self._wanted[0]:
            raise MethodError(
                "the model gives no outputs of floating type, so how far they move cannot be measured",
                hint="let the model give scores, or set `start: mean`",
            )
        columns = list(zip(*self._wanted, strict=True))
        self._scales = [_around_mean(column) for column in columns]

    def of(self, model: nn.Module) -> float:
        """The error of a changed model; infinite if it gives NaN, other shapes, or no outputs at all."""
        sums = [0.0] * len(self._scales)
        for inputs, wanted in zip(self._batches, self._wanted, strict=True):
            outputs = _outputs(model, inputs)
            if [part.shape for part in outputs] != [part.shape for part in wanted]:
                return math.inf
            for place, (part, goal) in enumerate(zip(outputs, wanted, strict=True)):
                sums[place] += float((part.double() - goal.double()).square().sum())
        errors = [total / scale for total, scale in zip(sums, self._scales, strict=True)]
        value = sum(errors) / len(errors)
        return value if math.isfinite(value) else math.inf


class ChainErrors:
    """Errors of chains of a stack's layers, for a search."""

    def __init__(
        self, model: nn.Module, site: Site, outputs: OutputError, metric: Callable[[nn.Module], float] | None
    ) -> None:
        """For a model, which is left as it is.

        Args:
            model: With all its layers.
            site: The stack.
            outputs: How far outputs move.
            metric: What is smaller for a better model; None judges by the outputs alone.
        """
        self._model, self._site, self._outputs, self._metric = model, site, outputs, metric

    def error(self, chain: Chain) -> float:
        """What the search makes small; infinite if the model does not run so."""
        if self._metric is None:
            return self.outputs(chain)
        try:
            return self._metric(self._with(chain)) + _OF_EQUAL_METRICS * min(self.outputs(chain), 1.0)
        except Exception:  # the user's own code, with layers that it may not expect
            return math.inf

    def outputs(self, chain: Chain) -> float:
        """How far the outputs move; infinite if the model does not run so."""
        try:
            return self._outputs.of(self._with(chain))
        except Exception:  # the user's own code, with layers that it may not expect
            return math.inf

    def of(self, model: nn.Module) -> float:
        """How far the outputs of any other model are from this one's."""
        return self._outputs.of(model)

    def _with(self, chain: Chain) -> nn.Module:
        changed = light_copy(self._model)
        arrange(changed, self._site, chain)
        return changed


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with evaluating(model), plain_attention():
        outputs = model(*(part.to(device) for part in inputs))
    return [part for part in tree_leaves(outputs) if isinstance(part, Tensor) and part.is_floating_point()]


def _around_mean(parts: Sequence[Tensor]) -> float:
    """Sum of squares around the mean over everything but the last axis; at least a tiny number."""
    flat = torch.cat([part.double().reshape(-1, part.shape[-1] if part.dim() else 1) for part in parts])
    spread = float((flat - flat.mean(0)).square().sum())
    return max(spread, _SMALLEST)
