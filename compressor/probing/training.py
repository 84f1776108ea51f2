"""Trains one small network on one synthetic task, and scores it at the trained length and at a longer one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import MethodError
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.probing.network import Network
from compressor.probing.tasks import accuracy
from compressor.training.trainer import Trainer, lr_factor, make_optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.probing.architecture import Architecture
    from compressor.probing.tasks import ProbeTask

_STEPS_A_LOOK = 50
"""After so many steps, at most, it is looked whether the task is solved."""
_CLIP = 1.0
_WARMUP = 0.1
_LOOKED_AT = 256
"""Sequences that decide whether the task is solved."""


@dataclass(frozen=True)
class Effort:
    """How a network is trained and scored: the same for whatever is compared."""

    width: int = 32
    """W, of the embedding and of every layer."""
    steps: int = 600
    """Optimizer steps, at most."""
    batch: int = 64
    lr: float = 5e-3
    """Of Adam; it rises over the first tenth of the steps and then falls as a cosine."""
    solved: float = 0.995
    """Accuracy on new sequences of the trained length at which training stops."""
    scored: int = 512
    """Sequences, drawn anew, of each length on which the accuracy is taken."""

    def facts(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """What came of one training."""

    accuracy: float
    """At the trained length."""
    longer: float
    """At the longer one, which training has not seen."""
    steps: int
    """Optimizer steps that were done."""
    parameters: int
    """Of the network between embedding and readout."""


def train(architecture: Architecture, task: ProbeTask, longer: int, effort: Effort, seed: int) -> Trained:
    """Train a network from random weights; the result depends on nothing but the arguments.

    Args:
        architecture: One that `scaled(effort.width)` gave.
        task: What is learned, at the length `task.length`.
        longer: The other length at which it is scored.
        effort: How.
        seed: Of weights and sequences.
    """
    steps = effort.steps * task.patience
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Network(architecture, effort.width, task.tokens, task.classes)
        drawn, looked, scored = (torch.Generator().manual_seed(3 * seed + part) for part in range(3))
        parameters = dict(network.named_parameters())
        trainer = Trainer(
            parameters,
            make_optimizer("adam", list(parameters.values()), lr=effort.lr, weight_decay=0.0, momentum=0.0),
            masks=_masks(network),
            clip=_CLIP,
            lr_at=lambda step: effort.lr * lr_factor(step, steps, "cosine", _WARMUP),
        )
        number = 0
        while trainer.step < steps:
            number += 1
            count = min(_STEPS_A_LOOK, steps - trainer.step)
            batches = (task.draw(drawn, effort.batch, task.length) for _ in range(count))
            try:
                trainer.epoch(batches, lambda batch: _loss(network, *batch), lambda *_: None, number=number)
            except MethodError:  # it diverged: it is scored as it is
                break
            if accuracy(network, task, looked, _LOOKED_AT, task.length) >= effort.solved:
                break
        at, beyond = (accuracy(network, task, scored, effort.scored, length) for length in (task.length, longer))
        return Trained(at, beyond, steps=trainer.step, parameters=sum(p.numel() for p in network.layers.parameters()))


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: networks this small gain nothing from more, and sums come out the same everywhere."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _loss(network: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(tokens).flatten(0, 1), targets.flatten())


def _masks(network: nn.Module) -> dict[str, Tensor]:
    """What the graphs in a network hold at zero."""
    return {
        f"{name}.{key}": mask
        for name, module in network.named_modules()
        if isinstance(module, GraphRecurrent)
        for key, mask in module.masks().items()
    }
