"""The training loop: optimizer steps with masks, clipping and noise, and a learning-rate schedule.

What makes it as fast as a bare loop: losses and norms stay on the device and are read a few times a second, masks
and noise go through one fused call for all the parameters, and nothing is computed that was not asked for.
"""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import CheckpointError, MethodError
from compressor.training.noise import add_noise_, noise_std
from compressor.training.readings import Readings, broken
from compressor.training.seeding import seeded_from
from compressor.training.team import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from compressor.training.team import Team

Schedule = Literal["constant", "cosine", "linear"]

_CLIP_EPSILON = 1e-6


@dataclass(frozen=True)
class Noise:
    """Gradient noise of variance eta / (1 + t)^gamma; see `compressor.training.noise`."""

    eta: float
    gamma: float
    generator: torch.Generator
    """On the device of the parameters."""


def lr_factor(step: int, steps: int, schedule: Schedule, warmup: float) -> float:
    """Fraction of the highest learning rate at optimizer step `step` = 0 .. steps - 1.

    Rises linearly over the first round(warmup * steps) steps, is 1 right after them, and then stays (`constant`) or
    falls to zero as step goes to `steps`: 1 - x (`linear`) or (1 + cos(pi x)) / 2 (`cosine`).
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    x = min((step - rising) / max(steps - rising, 1), 1.0)
    if schedule == "cosine":
        return (1.0 + math.cos(math.pi * x)) / 2.0
    return 1.0 - x if schedule == "linear" else 1.0


class Trainer:
    """Owns what lies between the loss and the new weights."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        *,
        masks: Mapping[str, Tensor],
        clip: float | None = None,
        noise: Noise | None = None,
        lr_at: Callable[[int], float] | None = None,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
        after_step: Callable[[int, float], None] | None = None,
        accumulate: int = 1,
        team: Team = ALONE,
    ) -> None:
        """Prepare.

        Args:
            parameters: What the optimizer trains, by name, on one device.
            optimizer: A fresh one: without a history, an element whose gradient is always zero and whose value is
                zero stays zero under SGD (with momentum and weight decay), Adam and AdamW. That holds the masks.
            masks: Name -> boolean mask, True = kept; the pruned weights are zero already.
            clip: Largest L2 norm of the whole gradient.
            noise: Added after clipping.
            lr_at: Learning rate by step; None leaves the optimizer's own.
            around: Entered for each batch around the loss and its gradient, but not the optimizer's step.
            after_step: Called after each optimizer step with its number, from 1, and its learning rate.
            accumulate: Batches whose mean loss is that of one step; the last step of an epoch may have fewer.
            team: Shares the batches of a step.
        """
        self._named = dict(parameters)
        self._parameters = list(parameters.values())
        self._optimizer = optimizer
        masked = [(parameters[name], mask) for name, mask in masks.items() if name in parameters]
        self._masked = [(parameter, mask.to(parameter.device, parameter.dtype)) for parameter, mask in masked]
        self._clip = clip
        self._noise = noise
        self._lr_at = lr_at
        self._around = around
        self._after_step = after_step
        self._accumulate, self._team = accumulate, team
        self._seed = torch.initial_seed()
        self.step = 0
        """Optimizer steps done."""

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Parameters, the optimizer's state, the step and the noise's generator."""
        tensors = {f"parameter.{name}": item.detach() for name, item in self._named.items()}
        numbers: dict[str, Any] = {}
        for index, entries in self._optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                (tensors if isinstance(value, Tensor) else numbers)[f"optimizer.{index}.{key}"] = value
        if self._noise is not None:
            tensors["noise"] = self._noise.generator.get_state()
        return tensors, {"step": self.step, "lr": self.lr, "optimizer": numbers}

    def put_back(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go on from a snapshot.

        Raises:
            CheckpointError: It is not one of this training.
        """
        copy_into(self._named, tensors, "parameter.")
        state: dict[int, dict[str, Any]] = {}
        for place, value in ({**tensors, **facts["optimizer"]}).items():
            kind, _, rest = place.partition(".")
            if kind == "optimizer":
                index, _, key = rest.partition(".")
                state.setdefault(int(index), {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        for group in self._optimizer.param_groups:
            group["lr"] = facts["lr"]
        if self._noise is not None:
            self._noise.generator.set_state(tensors["noise"])
        self.step = facts["step"]

    def epoch(
        self,
        batches: Iterable[Any],
        loss: Callable[[Any], Tensor],
        report: Callable[[int, float], None],
        *,
        number: int,
    ) -> float:
        """One pass over `batches`; gives the mean of their losses.

        Args:
            batches: Anything that `loss` takes.
            loss: Batch -> scalar with a gradient (see `check_loss`).
            report: Called now and then with the number of batches since the last call and the latest loss.
            number: The epoch, for messages.

        Raises:
            MethodError: No batch, no gradient, or a loss, gradient or (after the last step) weight that is not finite.
        """
        readings = Readings(number, self.step, report)
        for group in _grouped(batches, self._accumulate):
            value = self._backward(group, loss)
            readings.add(value, self._update(), len(group))
        mean = readings.close()
        self._check_weights(number)
        return mean

    def _backward(self, group: Sequence[Any], loss: Callable[[Any], Tensor]) -> Tensor:
        """The gradients of the mean loss of a group of batches; gives that loss."""
        if self._accumulate == 1:
            return self._loss_of(group[0], loss, 1)
        values = []
        # Each batch draws its own random numbers, whoever computes it; the batches to come draw as if nobody had.
        for place in range(self._team.rank, len(group), self._team.size):
            with seeded_from((self._seed + self.step * self._accumulate + place) % 2**63, self._parameters[0].device):
                values.append(self._loss_of(group[place], loss, len(group)) / len(group))
        own = torch.stack(values).sum() if values else torch.zeros((), device=self._parameters[0].device)
        return self._team.add_up(self._parameters, own)

    def _loss_of(self, batch: Any, loss: Callable[[Any], Tensor], batches: int) -> Tensor:
        with self._around():
            value = loss(batch)
            (value if batches == 1 else value / batches).backward()
        if self.step == 0:
            _check_gradients([parameter.grad for parameter in self._parameters if parameter.grad is not None])
        return value.detach()

    def _update(self) -> Tensor:
        """One optimizer step from the gradients at hand; gives their norm (of the unpruned weights, unclipped)."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._mask()
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self._clip is not None:
            torch._foreach_mul_(gradients, (self._clip / (norm + _CLIP_EPSILON)).clamp(max=1.0))
        if self._noise is not None:
            add_noise_(gradients, noise_std(self.step, self._noise.eta, self._noise.gamma), self._noise.generator)
            self._mask()
        if self._lr_at is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr_at(self.step)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self._after_step is not None:
            self._after_step(self.step, self.lr)
        return norm

    def _check_weights(self, epoch: int) -> None:
        """The last step's weights show in no loss of this epoch."""
        if not all(bool(parameter.isfinite().all()) for parameter in self._parameters):
            raise broken("a weight is NaN or infinite", epoch, self.step)

    def _mask(self) -> None:
        pairs = [(parameter.grad, mask) for parameter, mask in self._masked if parameter.grad is not None]
        if pairs:
            gradients, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, masks)


def _grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many batches at a time; the last ones may be fewer."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def copy_into(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Give tensors the values of those of a snapshot, in place; raises `CheckpointError` if one is missing."""
    for name, target in targets.items():
        value = tensors.get(prefix + name)
        if value is None or value.shape != target.shape or value.dtype != target.dtype:
            raise CheckpointError(
                f"the snapshot of a training does not fit the model at `{name}`", hint="begin anew with --restart"
            )
        with torch.no_grad():
            target.copy_(value)


def make_optimizer(
    kind: Literal["adam", "adamw", "sgd"],
    parameters: Sequence[nn.Parameter],
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
) -> torch.optim.Optimizer:
    """A fresh optimizer in its fused form, one call for all the parameters on CPU and CUDA alike."""
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=True)
    adam = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return adam(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def _check_gradients(gradients: Sequence[Tensor]) -> None:
    if not gradients:
        raise MethodError(
            "no parameter of the model received a gradient",
            hint="compute `Task.loss` from the model's outputs; the parameters must not be frozen",
        )
    if any(gradient.is_sparse for gradient in gradients):
        raise MethodError("a parameter has a sparse gradient", hint="build nn.Embedding without `sparse=True`")
