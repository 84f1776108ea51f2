"""What a hidden unit or feature is worth by gradients: of the training loss, or of the outputs.

Each function gives a scorer, as in `scores`.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compressor.errors import MethodError
from compressor.nn.names import full_name
from compressor.surgery.refit.consumers import CONSUMERS
from compressor.surgery.trace.edges import narrowed_target
from compressor.surgery.units.statistics import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from compressor.surgery.refit.calibration import Batches
    from compressor.surgery.trace.atoms import Atoms
    from compressor.surgery.trace.state import Trace
    from compressor.surgery.units.choice import Scores
    from compressor.surgery.units.planning import Scorer


def taylor(batches: Iterable[tuple[tuple[Tensor, ...], Any]], loss: Callable[[Any, Any], Tensor]) -> Scorer:
    r"""First-order effect of a group's weights on the loss: the sum of :math:`|w \, \partial L / \partial w|`.

    Over all weights that it owns (its rows and its columns in consumers, no biases) and over the batches; see
    Molchanov et al., arXiv 1906.10771, section 3.1, without its square.

    Args:
        batches: Pairs of inputs and target; gone through once for each trace.
        loss: (outputs, target) -> scalar.
    """
    return _on_gradients(batches, loss, lambda weight, gradient: (gradient * weight).abs())


def hessian(batches: Iterable[tuple[tuple[Tensor, ...], Any]], loss: Callable[[Any, Any], Tensor]) -> Scorer:
    r"""Second-order effect of a group's weights on the loss: the sum of :math:`(w \, \partial L / \partial w)^2`.

    The diagonal of the Hessian is taken from the squared gradients of the batches (empirical Fisher), so that
    :math:`\tfrac12 w^2 \, \partial^2 L / \partial w^2` is that up to a factor (LeCun et al., optimal brain damage,
    1989). Arguments as of `taylor`.
    """
    return _on_gradients(batches, loss, lambda weight, gradient: (gradient * weight).square())


def _on_gradients(
    batches: Iterable[tuple[tuple[Tensor, ...], Any]],
    loss: Callable[[Any, Any], Tensor],
    effect: Callable[[Tensor, Tensor], Tensor],
) -> Scorer:
    def score(model: nn.Module, trace: Trace) -> Scores:
        totals = np.zeros(trace.atoms.count)
        with _differentiable(model) as copied:
            parameters = dict(copied.named_parameters())
            axes = {key: ids for key, ids in trace.atoms.axes.items() if key[0] in parameters}
            wanted = {name: parameters[name] for name, _ in axes if parameters[name].dim() > 1}
            for inputs, target in batches:
                outputs = copied(*_on_device(copied, inputs))
                value = loss(outputs, narrowed_target(copied, outputs, target))
                for name, gradient in _gradients(value, wanted).items():
                    effects = effect(wanted[name].detach(), gradient).double()
                    for axis in range(effects.dim()):
                        if (name, axis) in axes:
                            _add_along(totals, trace.atoms, (name, axis), effects)
        return totals

    return score


def sensitivity(batches: Batches, generator: torch.Generator, *, probes: int = 2) -> Scorer:
    r"""How much the model's outputs move when a group is held at its mean, to first order; no labels are needed.

    With :math:`h_{ut}` what unit u gives its consumers at step t and :math:`\bar h_u` its mean,

    .. math:: s_u = \sqrt{\sum_b \Big(\sum_t \frac{\partial (r_b \cdot y)}{\partial h_{ut}} (h_{ut} - \bar h_u)\Big)^2}

    for random :math:`r_b \sim N(0, I)`, so that :math:`s_u^2` estimates the squared change of all outputs y, summed
    over the samples. It is computed from the gradients of consumer weights and biases: the inner sum is
    :math:`\sum_r W_{ru} (\partial W_{ru} - \bar h_u \, \partial b_r)`. A consumer without a bias cannot take the
    mean, so 0 is used there.

    Args:
        batches: Inputs of the model.
        generator: Draws r (on the CPU).
        probes: Draws of r for each batch.
    """

    def score(model: nn.Module, trace: Trace) -> Scores:
        statistics = measure(model, batches)
        totals = np.zeros(trace.atoms.count)
        with _differentiable(model) as copied:
            consumers = _consumers(copied, trace.atoms)
            parameters = dict(copied.named_parameters())
            wanted = {name: parameters[name] for weight, bias in consumers.items() for name in (weight, bias) if name}
            for inputs in (batch for batch in batches for _ in range(probes)):
                gradients = _gradients(_probe(copied(*_on_device(copied, inputs)), generator), wanted)
                effects = np.zeros(trace.atoms.count)
                for weight, bias in consumers.items():
                    values = parameters[weight].detach()
                    effect = (gradients[weight] * values).double()
                    if bias is not None and weight in statistics:
                        share = (gradients[bias].view(-1, *[1] * (values.dim() - 1)) * values).double()
                        mean = statistics[weight].mean.to(share.device)
                        effect = effect - share * mean.view(1, -1, *[1] * (values.dim() - 2))
                    _add_along(effects, trace.atoms, (weight, 1), effect)
                totals += np.square(effects)
        return np.asarray(np.sqrt(totals))

    return score


def _consumers(model: nn.Module, atoms: Atoms) -> dict[str, str | None]:
    """Weight that takes units in -> the bias that is added to its products, None if there is none."""
    names = {name for name, _ in model.named_parameters()}
    consumers: dict[str, str | None] = {}
    for weight, axis in atoms.axes:
        owner, _, local = weight.rpartition(".")
        if axis != 1 or weight not in names:
            continue
        if isinstance(model.get_submodule(owner), CONSUMERS):
            bias = full_name(owner, local.replace("weight", "bias", 1))
            consumers[weight] = bias if bias in names else None
        elif atoms.roles[weight, axis] == "in":
            consumers[weight] = None
    return consumers


@contextmanager
def _differentiable(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of a model in evaluation mode, every floating-point parameter with a gradient."""
    copied = copy.deepcopy(model).eval()
    for parameter in copied.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    # cuDNN has no backward pass for recurrent layers in evaluation mode.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        yield copied


def _on_device(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    device = next(model.parameters()).device
    return tuple(part.to(device) for part in inputs)


def _probe(outputs: Any, generator: torch.Generator) -> Tensor:
    """The product r . y over all floating-point outputs."""
    parts = [part for part in tree_flatten(outputs)[0] if isinstance(part, Tensor) and part.is_floating_point()]
    return torch.stack(
        [(part * torch.randn(part.shape, generator=generator).to(part.device, part.dtype)).sum() for part in parts]
    ).sum()


def _gradients(value: Tensor, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient for each parameter, zeros if there is none."""
    if not value.requires_grad:
        raise MethodError(
            "no gradient flows from the outputs to the weights, so they cannot be scored by it",
            hint="use a score without gradients, such as `l2` or `variance`",
        )
    gradients = torch.autograd.grad(value, list(wanted.values()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(wanted.items(), gradients, strict=True)
    }


def _add_along(totals: Scores, atoms: Atoms, key: tuple[str, int], effect: Tensor) -> None:
    """Add what belongs to each position of an axis to its group."""
    others = [axis for axis in range(effect.dim()) if axis != key[1]]
    np.add.at(totals, atoms.roots(atoms.axes[key]), effect.sum(others).cpu().numpy())
