"""Fits a pooling to what another one gave: its readout by least squares, the rest by gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.nn.attention.pooling import PoolingReplacement, RowMix
from compressor.nn.least_squares import RIDGES, Moments, Problem, choose_ridge
from compressor.training.trainer import Trainer, lr_factor, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HELD_OUT = 4
"""One in so many calibration batches is held out to say how well the new pooling fits."""
MOST_REGRESSED = 4096
"""Inputs of a readout up to which it is solved for; the sums of more take too much memory."""

_RIDGES = (1e-8, 1e-6, 1e-4, *RIDGES)
"""Rows are similar, since their weights are flat, and it is their small differences that a readout has to enlarge."""


@dataclass(frozen=True)
class Sample:
    """A batch that went through the pooling which is replaced."""

    sequence: Tensor
    """(B, T, D)."""
    real: Tensor | None
    """(B, T) bool."""
    output: Tensor
    """(B, F)."""


def explained(module: PoolingReplacement, samples: Sequence[Sample]) -> float:
    """R^2 = 1 - sum |y - y'|^2 / sum |y - mean y|^2 over all outputs y of the samples.

    1 is perfect, 0 no better than always the mean output; NaN if y is always the same.
    """
    residual = total = 0.0
    mean = torch.cat([sample.output for sample in samples]).mean(0)
    with torch.no_grad():
        for sample in samples:
            outputs = module.read_out(module.pool(sample.sequence, sample.real))
            residual += float((sample.output - outputs).double().square().sum())
            total += float((sample.output - mean).double().square().sum())
    return 1.0 - residual / total if total else float("nan")


def fit_and_measure(
    module: PoolingReplacement,
    samples: Sequence[Sample],
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    report: Callable[[int, float], None],
) -> float:
    """`fit` the module to three quarters of the samples, in place; the part of the others that it explains."""
    held_out = samples[_HELD_OUT - 1 :: _HELD_OUT] or samples[-1:]
    fitted_to = [sample for sample in samples if not any(sample is other for other in held_out)] or samples
    fit(module, fitted_to, held_out, steps=steps, lr=lr, generator=generator, report=report)
    return explained(module, held_out)


def solve_readout(module: PoolingReplacement, samples: Sequence[Sample]) -> bool:
    """Put the readout in place that fits best in ridge regression, the ridge chosen by halves; False if none can be.

    A linear readout has a constant, sums of rows have none.
    """
    readout = module.readout
    if readout is None or (isinstance(readout, nn.Linear) and readout.in_features > MOST_REGRESSED):
        return False
    device = samples[0].output.device
    mixes = isinstance(readout, RowMix)
    inputs, outputs = (
        (module.pool.rows, module.output_size // module.pool.width)
        if mixes
        else (module.pool.rows * module.pool.width, module.output_size)
    )
    halves = (Moments(inputs, outputs, device), Moments(inputs, outputs, device))
    with torch.no_grad():
        for sample in samples:
            rows = module.pool(sample.sequence, sample.real).double()  # (B, m, D)
            for half, moments in enumerate(halves):
                moments.add(*_regressed(rows[half::2], sample.output[half::2].double(), mixes=mixes))
    problem = Problem(torch.arange(inputs, device=device), slice(0, outputs), constant=not mixes)
    solution = (halves[0] + halves[1]).solve(problem, choose_ridge(halves, problem, _RIDGES))
    with torch.no_grad():
        readout.weight.copy_(solution.weights)
        if isinstance(readout, nn.Linear):
            readout.bias.copy_(solution.constant)
    return True


def fit(
    module: PoolingReplacement,
    samples: Sequence[Sample],
    held_out: Sequence[Sample],
    *,
    steps: int,
    lr: float,
    generator: torch.Generator,
    report: Callable[[int, float], None],
) -> None:
    """Fit `module` to the samples, in place: readout, then everything, then the readout again.

    The loss of a step is the mean squared error over a batch, in units of the variance of all outputs. What explains
    most of the outputs held out stays: what there was at first, or either of the fits.

    Args:
        module: Poolings without parameters get their readout only.
        samples: What to fit to.
        held_out: What to choose by.
        steps: Optimizer steps (Adam, its learning rate falling along a half cosine).
        lr: Highest learning rate.
        generator: Draws the batches.
        report: Called now and then with the number of steps since the last call and the latest loss.
    """
    best = -math.inf
    kept: dict[str, Tensor] = {}

    def consider() -> None:
        nonlocal best, kept
        share = explained(module, held_out)
        if not kept or share > best:
            best, kept = share, {name: value.clone() for name, value in module.state_dict().items()}

    consider()
    if solve_readout(module, samples):
        consider()
    if steps and list(module.pool.parameters()):
        _descend(module, samples, steps, lr, generator, report)
        consider()
        if solve_readout(module, samples):
            consider()
    module.load_state_dict(kept)


def _descend(
    module: PoolingReplacement,
    samples: Sequence[Sample],
    steps: int,
    lr: float,
    generator: torch.Generator,
    report: Callable[[int, float], None],
) -> None:
    variance = torch.cat([sample.output for sample in samples]).var(0, correction=0).mean()
    variance = variance.clamp(min=torch.finfo(variance.dtype).tiny)
    parameters = dict(module.named_parameters())
    optimizer = make_optimizer("adam", list(parameters.values()), lr=lr, weight_decay=0.0, momentum=0.0)
    trainer = Trainer(
        parameters, optimizer, masks={}, clip=5.0, lr_at=lambda step: lr * lr_factor(step, steps, "cosine", 0.05)
    )

    def loss(sample: Sample) -> Tensor:
        outputs = module.read_out(module.pool(sample.sequence, sample.real))
        return (outputs - sample.output).square().mean() / variance

    drawn = torch.randint(len(samples), (steps,), generator=generator).tolist()
    trainer.epoch((samples[index] for index in drawn), loss, report, number=1)


def _regressed(rows: Tensor, outputs: Tensor, *, mixes: bool) -> tuple[Tensor, Tensor]:
    """What is regressed on what: rows (B, m, D) and outputs (B, F) as samples of inputs and outputs."""
    if not mixes:
        return rows.flatten(1), outputs
    width = rows.size(2)
    return rows.transpose(1, 2).flatten(0, 1), outputs.unflatten(1, (-1, width)).transpose(1, 2).flatten(0, 1)
