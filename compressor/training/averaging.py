r"""The mean of the weights over the last optimizer steps (Polyak and Juditsky 1992; Izmailov et al., arXiv 1803.05407).

.. math::
    \bar{w}_n = \bar{w}_{n-1} + (w_n - \bar{w}_{n-1}) / n

With rounding in training it is the mean of the exact weights and of the logarithms of learned steps; what is measured
and kept is that mean, rounded. Buffers, such as the statistics of a batch normalisation, stay those of the last step.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn


class Average:
    """Adds up parameters after each step from one on."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], after: int) -> None:
        """`parameters` are averaged over all steps but the first `after` ones."""
        self._parameters, self._after = dict(parameters), after
        self.count = 0
        """Steps in the mean."""
        self.mean: dict[str, Tensor] = {name: torch.zeros_like(item).detach() for name, item in parameters.items()}
        """The mean of each parameter; zeros without a step."""

    @torch.no_grad()
    def see(self, step: int) -> None:
        """Take in the parameters as they are after optimizer step `step`, counted from 1."""
        if step <= self._after:
            return
        self.count += 1
        now = [item.detach() for item in self._parameters.values()]
        torch._foreach_lerp_(list(self.mean.values()), now, 1.0 / self.count)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the parameters are their mean; afterwards they are what they were."""
        last = {name: item.detach().clone() for name, item in self._parameters.items()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(last)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, item in self._parameters.items():
            item.copy_(values[name])
