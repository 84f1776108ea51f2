"""One layer that is applied again and again until what it works on settles.

The rule is that of samplers for recurrent-depth models (Geiping et al., arXiv 2510.14961): stop when the latent has
changed by less than a part of itself. Here each sample stops by itself, so that nothing depends on its neighbours in
the batch.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn


class HaltingLayer(nn.Module):
    """x_0 is given, x_k = f(x_{k-1}, ...) for k = 1 .. n; x_k of the first k with d_k <= threshold comes out, or x_n.

    d_k = |x_k - x_{k-1}| / |x_k| with the Euclidean norm over all axes but that of the batch: positions of padding
    count too. While training, and with `threshold` 0 for almost any x, all n steps are made.
    """

    def __init__(self, layer: nn.Module, steps: int, threshold: float, batch_axis: int) -> None:
        """Around a layer.

        Args:
            layer: f: a tensor as first argument, and one of the same shape out, alone or in a tuple of one.
            steps: n, 1 or more.
            threshold: 0 or more.
            batch_axis: Axis of x that counts samples.
        """
        super().__init__()
        self.layer = layer
        self.steps = steps
        self.threshold = threshold
        self.batch_axis = batch_axis
        self.taken: Counter[int] = Counter()
        """Number of steps -> samples that took so many since `forget_steps`; those of training are not counted."""

    def __getattr__(self, name: str) -> Any:
        """What the model reads of its layers (`nn.TransformerEncoder` reads `self_attn`), it reads of f."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As f's; all further arguments are the same in all steps."""
        live = self.all_live(x)
        wrapped = False
        counts = torch.zeros_like(live, dtype=torch.int64)
        for _ in range(self.steps):
            if self.training:
                x, wrapped = self._applied(x, args, kwargs)
                continue
            counts += live
            x, live, wrapped = self.step(x, live, args, kwargs)
            if not bool(live.any()):
                break
        if not self.training:
            self.taken.update(counts.tolist())
        return (x,) if wrapped else x

    def all_live(self, x: Tensor) -> Tensor:
        """True for each sample (B,)."""
        return torch.ones(x.shape[self.batch_axis], dtype=torch.bool, device=x.device)

    def step(
        self, x: Tensor, live: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Tensor, Tensor, bool]:
        """x_k and who goes on (B,), of x_{k-1} and who went on; and whether f gives a tuple."""
        y, wrapped = self._applied(x, args, kwargs)
        others = [axis for axis in range(x.dim()) if axis != self.batch_axis]
        # Means, and float32 at least: sums of squares of many numbers leave the range of float16.
        wide = torch.promote_types(x.dtype, torch.float32)
        moved = (y - x).to(wide).square().mean(others)
        size = y.to(wide).square().mean(others)
        shape = [1] * x.dim()
        shape[self.batch_axis] = -1
        held = torch.where(live.view(shape), y, x)
        return held, live & (moved > self.threshold**2 * size), wrapped

    def _applied(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, bool]:
        y = self.layer(x, *args, **kwargs)
        return (y[0], True) if isinstance(y, tuple) else (y, False)

    def extra_repr(self) -> str:
        """The rule."""
        return f"steps={self.steps}, threshold={self.threshold:g}"


def halting_layers(model: nn.Module) -> dict[str, HaltingLayer]:
    """Those of a model, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, HaltingLayer)}


def forget_steps(model: nn.Module) -> None:
    """Count anew."""
    for module in halting_layers(model).values():
        module.taken.clear()


def step_facts(model: nn.Module) -> dict[str, float]:
    """Mean and largest number of steps of each halting layer since `forget_steps`; nothing of those that never ran."""
    facts = {}
    for name, module in halting_layers(model).items():
        samples = sum(module.taken.values())
        if samples:
            label = f"steps of `{name}` (at most {module.steps})"
            facts[f"mean {label}"] = sum(number * count for number, count in module.taken.items()) / samples
            facts[f"largest number of {label}"] = float(max(module.taken))
    return facts
