"""Where Torch-Pruning's dependency graph is at home (Linear, convolutions), the tracer finds the same groups.

Left out is what version 1.6.1 gets wrong: it does not see that a model input takes places in a concatenation, nor that
a flattened tensor is concatenated again.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_pruning
from torch import nn

from compressor.surgery.trace.tracer import trace

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


class ResidualPerceptron(nn.Module):
    """Two sums in a row tie three layers."""

    shape = (2, 5)

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.back = nn.Linear(5, 13), nn.Linear(13, 7), nn.Linear(7, 13, bias=False)
        self.second, self.head = nn.Linear(13, 13), nn.Linear(13, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = x + self.back(torch.tanh(self.inner(x)))
        return self.head(x + self.second(x))


class Network(nn.Module):
    """Convolutions with batch normalisation and a flatten: each channel is 6 inputs of the Linear."""

    shape = (2, 3, 8, 12)

    def __init__(self):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(3, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.second, self.second_norm = nn.Conv2d(7, 11, 3, padding=1), nn.BatchNorm2d(11)
        self.hidden, self.head = nn.Linear(11 * 6, 13), nn.Linear(13, 5)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):
        x = self.pool(torch.relu(self.first_norm(self.first(x))))
        x = nn.functional.avg_pool2d(torch.relu(self.second_norm(self.second(x))), 2)
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class Concatenation(nn.Module):
    """Branches side by side: positions behind the first are shifted."""

    shape = (2, 3, 4, 4)

    def __init__(self):
        super().__init__()
        self.left, self.middle, self.right = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 7, 1)
        self.norm, self.joined = nn.BatchNorm2d(15), nn.Conv2d(15, 2, 3, padding=1)
        self.head = nn.Linear(2 * 16, 3)

    def forward(self, x):
        both = self.norm(torch.cat([self.left(x), self.middle(x), self.right(x)], 1))
        return self.head(torch.relu(self.joined(both)).flatten(1))


class Depthwise(nn.Module):
    """Inverted bottleneck: expanding, depthwise and projecting convolutions with a residual."""

    shape = (2, 3, 6, 6)

    def __init__(self):
        super().__init__()
        self.stem, self.expand, self.expand_norm = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 11, 1), nn.BatchNorm2d(11)
        self.depthwise, self.depthwise_norm = nn.Conv2d(11, 11, 3, padding=1, groups=11), nn.BatchNorm2d(11)
        self.project, self.head = nn.Conv2d(11, 5, 1), nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        y = nn.functional.relu6(self.expand_norm(self.expand(x)))
        y = nn.functional.relu6(self.depthwise_norm(self.depthwise(y)))
        return self.head((x + self.project(y)).mean((2, 3)))


class Transposed(nn.Module):
    """A decoder: the weight of a transposed convolution has its outputs on axis 1."""

    shape = (2, 3, 4, 4)

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 7, 2, stride=2), nn.ConvTranspose2d(7, 5, 2, stride=2)
        self.norm, self.head = nn.BatchNorm2d(5), nn.Conv2d(5, 2, 1)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.up(torch.relu(self.down(x))))))


class OverTime(nn.Module):
    """A convolution over time and a Linear on every step, their axes swapped in between."""

    shape = (2, 5, 17)

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(5, 11, 3), nn.BatchNorm1d(11)
        self.step, self.head = nn.Linear(11, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))).transpose(1, 2)
        return self.head(torch.sigmoid(self.step(x)).mean(1))


class Halves(nn.Module):
    """Positions u and u + 7 of one layer go together, since its halves are multiplied."""

    shape = (2, 5)

    def __init__(self):
        super().__init__()
        self.both, self.head = nn.Linear(5, 14), nn.Linear(7, 3)

    def forward(self, x):
        values, gates = self.both(x).chunk(2, -1)
        return self.head(values * torch.sigmoid(gates))


MODELS = [ResidualPerceptron, Network, Concatenation, Depthwise, Transposed, OverTime, Halves]


def _ours(seen, name, indices):
    """(parameter or buffer, axis) -> the positions that go with `indices` of the layer's outputs."""
    atoms = seen.atoms
    axis = _axis(seen.model.get_submodule(name), "weight", outwards=True)
    removed = atoms.roots(atoms.axes[f"{name}.weight", axis][indices])
    found = {key: np.isin(atoms.roots(ids), removed).nonzero()[0].tolist() for key, ids in atoms.axes.items()}
    return {key: positions for key, positions in found.items() if positions}


def _theirs(graph, model, name, indices):
    """The same from Torch-Pruning."""
    module = model.get_submodule(name)
    pruner = graph.get_pruner_of_module(module)
    names = {module: name for name, module in model.named_modules()}
    found = {}
    for dependency, positions in graph.get_pruning_group(module, pruner.prune_out_channels, indices):
        target = dependency.target.module
        if target not in names:  # an operation without parameters
            continue
        outwards = graph.is_out_channel_pruning_fn(dependency.handler)
        for local, tensor in target.state_dict().items():
            axis = _axis(target, local, outwards=outwards)
            if axis is not None and tensor.dim():
                found.setdefault((f"{names[target]}.{local}", axis), set()).update(positions)
    return {key: sorted(positions) for key, positions in found.items()}


def _axis(module, local, *, outwards):
    """The axis of a tensor that loses positions with the module's outputs or inputs; None where it loses none."""
    if local != "weight" or not isinstance(module, LAYERS):
        return 0 if outwards or not isinstance(module, LAYERS) else None
    if getattr(module, "groups", 1) > 1:
        return 0
    return int(outwards) if isinstance(module, nn.ConvTranspose2d) else 1 - int(outwards)


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_the_same_positions_of_the_same_parameters_go_together_and_only_outputs_stay(kind):
    torch.manual_seed(0)
    model = kind().eval()
    example = torch.randn(kind.shape)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example)
    seen = trace(model, (example,))
    generator = np.random.default_rng(0)
    for name, module in model.named_modules():
        if not isinstance(module, LAYERS):
            continue
        size = module.bias.numel() if module.bias is not None else module.weight.shape[0]
        several = [generator.permutation(size)[: size // 2].tolist() for _ in range(3)]
        for indices in [*([index] for index in range(size)), *several, list(range(size))]:
            assert _ours(seen, name, indices) == _theirs(graph, model, name, indices), (name, indices)
        groups = seen.atoms.roots(seen.atoms.axes[f"{name}.weight", _axis(module, "weight", outwards=True)])
        assert set(groups.tolist()).isdisjoint(seen.atoms.reasons()) == (name != "head"), name
