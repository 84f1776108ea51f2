"""What Torch-Pruning's tests build by hand, written anew: 11 models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.kinds.kind import Kind, image
from benchmarks.kinds.wired import wired

WIDTH = 6
PICTURE = image(7, WIDTH)


def _pointwise(inputs: int, *outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in outputs:
        layers += [nn.Conv2d(inputs, size, 1), nn.BatchNorm2d(size), nn.GELU()]
        inputs = size
    return nn.Sequential(*layers[:-1])


def _row(*sizes: int) -> Any:
    return lambda batch, length: tuple(torch.randn(batch, size) for size in sizes)


class Scaled(nn.Module):
    """Features divided by their length, with a scale and a shift, and a Linear layer of the same width."""

    def __init__(self, width: int) -> None:
        """Of a width."""
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F) to the same shape."""
        return self.mix(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-6) * self.scale + self.shift)


class Unused(nn.Module):
    """Layers, one that scales, and parameters that nothing reads."""

    def __init__(self) -> None:
        """Of fixed sizes."""
        super().__init__()
        self.enter, self.scaled, self.leave = nn.Linear(12, 20), Scaled(20), nn.Linear(20, 5)
        self.unused = nn.Parameter(torch.randn(10))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 12) to (B, 5)."""
        return self.leave(self.scaled(torch.relu(self.enter(x))))


def _cascade(m: Any, x: Tensor) -> Tensor:
    y = torch.cat([torch.cat([m.a(x), m.b(x)], 1), m.c(x)], 1)
    return m.head(torch.cat([y, m.d(x)], 1))


def _joined_parts(m: Any, x: Tensor) -> Tensor:
    beside, y = m.beside(x), m.enter(x)
    read = m.mix[0].in_channels - m.beside[-1].num_features
    first, second = torch.split(y, (read, m.enter[-1].num_features - read), 1)
    return m.mix(torch.cat([first, beside], 1)) + second


def _parts(m: Any, x: Tensor) -> tuple[Tensor, ...]:
    small, large = m.small[0].in_channels, m.large[0].in_channels
    first, second, third = torch.split(m.enter(x), [small, small, large], dim=1)
    return m.small(first), m.small(second), m.large(third)


def _stacked(m: Any, x: Tensor) -> Tensor:
    upper, lower = m.a(x), m.b(x)
    both = m.first(torch.cat([upper, lower], dim=2))
    return m.second(torch.split(both, [upper.shape[2], lower.shape[2]], dim=2)[0])


def _decoder(m: Any, x: Tensor) -> Tensor:
    y = torch.relu(m.enter(x)).view(-1, m.first.in_channels, 4, 4)
    return m.head(torch.flatten(torch.relu(m.second(torch.relu(m.first(y)))), 1))


def _lenet(m: Any, x: Tensor) -> Tensor:
    y = F.max_pool2d(torch.relu(m.first(x)), 2)
    y = F.max_pool2d(torch.relu(m.second(y)), 2)
    return torch.relu(m.c(torch.relu(m.b(torch.relu(m.a(y.view(y.shape[0], -1)))))))


def _wide_and_deep(m: Any, x: Tensor) -> Tensor:
    x = x.reshape(x.shape[0], -1)
    return torch.sigmoid(m.head(torch.cat([m.wide(x), m.deep(x)], dim=-1)))


def _outputs(m: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = torch.relu(m.a(x)), torch.relu(m.b(y))
    return a, b, torch.relu(m.both(torch.cat([a, b], dim=1)))


def _residual(m: Any, x: Tensor) -> Tensor:
    y = torch.relu(m.enter(x))
    return m.leave(torch.relu(m.middle(y)) + y)


def _three(middle: nn.Module) -> dict[str, nn.Module]:
    return {"a": nn.Conv2d(3, 16, 3, 1, 1), "a_norm": nn.BatchNorm2d(16), "b": middle, "b_norm": nn.BatchNorm2d(24)}


KINDS = [
    wired("concatenations of concatenations", PICTURE, _cascade,
          lambda: {"a": _pointwise(6, 6, 6), "b": _pointwise(6, 12, 12), "c": _pointwise(6, 18),
                   "d": _pointwise(6, 36), "head": nn.Conv2d(72, 10, 1)}),
    wired("wide and deep", _row(16), _wide_and_deep,
          lambda: {"deep": nn.Sequential(nn.Linear(16, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.2),
                                         nn.Linear(20, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 1)),
                   "wide": nn.Linear(16, 3), "head": nn.Linear(4, 1)}),
    wired("a split whose parts go different ways", PICTURE, _joined_parts,
          lambda: {"enter": _pointwise(6, 6, 12), "beside": _pointwise(6, 6, 6), "mix": _pointwise(12, 6)}),
    wired("a split of three parts, one layer used twice", image(7, 8), _parts,
          lambda: {"enter": _pointwise(8, 8, 32), "small": _pointwise(8, 8), "large": _pointwise(16, 8)}),
    Kind("a layer that scales, and parameters that nothing reads", Unused, _row(12), length=1, max_length=1),
    wired("LeNet", image(28, 1), _lenet,
          lambda: {"first": nn.Conv2d(1, 6, 5), "second": nn.Conv2d(6, 16, 5), "a": nn.Linear(256, 30),
                   "b": nn.Linear(30, 24), "c": nn.Linear(24, 10)}),
    wired("Linear layers with a residual", _row(12), _residual,
          lambda: {"enter": nn.Linear(12, 32), "middle": nn.Linear(32, 32), "leave": nn.Linear(32, 5)}),
    wired("two inputs, three outputs", _row(12, 8), _outputs,
          lambda: {"a": nn.Linear(12, 16), "b": nn.Linear(8, 16), "both": nn.Linear(32, 20)}),
    wired("joined along the height and split again", PICTURE, _stacked,
          lambda: {"a": _pointwise(6, 6, 6), "b": _pointwise(6, 6, 6), "first": nn.Conv2d(6, 6, 1),
                   "second": nn.Conv2d(6, 6, 1)}),
    wired("Linear, a view into channels, transposed convolutions, flattened", _row(10), _decoder,
          lambda: {"enter": nn.Linear(10, 128), "first": nn.ConvTranspose2d(8, 12, 4, 2, 1),
                   "second": nn.ConvTranspose2d(12, 4, 4, 2, 1), "head": nn.Linear(4 * 256, 5)}),
    wired("a transposed convolution between two", image(8),
          lambda m, x: torch.relu(m.c(torch.relu(m.b_norm(m.b(torch.relu(m.a_norm(m.a(x)))))))),
          lambda: {**_three(nn.ConvTranspose2d(16, 24, 2, 2)), "c": nn.Conv2d(24, 1, 3, 1, 1)}),
]  # fmt: skip
