"""Small models of the kinds that other pruning tools test themselves on, with some dead features in each.

`dead` names layers and the features that give 0 at every position, whatever comes in: their rows and biases are 0, and
so are the scale and shift of the normalisations behind them. A removal of exactly these must not change an output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Dead = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Peer:
    """One model."""

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    """Of an input, without the batch."""
    dead: Dead
    targets: tuple[str, ...]
    """Layers whose dead features go."""
    tokens: bool = False
    """The inputs are whole numbers below 11."""

    def build(self) -> nn.Module:
        """The model in float64 with its dead features."""
        torch.manual_seed(0)
        model = self.model().double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # normalisations start with ones and zeros, which hide mistakes
                    parameter.uniform_(0.5, 1.5)
        kill(model, self.dead)
        return model

    def example(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs."""
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return (torch.randint(0, 11, (batch, *self.shape), generator=generator),)
        return (torch.randn(batch, *self.shape, generator=generator, dtype=torch.float64),)


def output_axis(module: Any) -> int:
    """Of the weight: the axis of what the layer gives out."""
    transposed = getattr(module, "transposed", False)
    return int(transposed and module.groups < module.in_channels)


@torch.no_grad()
def kill(model: nn.Module, dead: Dead) -> None:
    """Zero what the named layers give at these features."""
    for name, indices in dead.items():
        module: Any = model.get_submodule(name)
        axis = output_axis(module)
        module.weight.index_fill_(axis, torch.tensor(indices), 0.0)
        if getattr(module, "bias", None) is not None:  # of a transposed convolution: in every group
            module.bias.view(-1, module.weight.size(axis))[:, list(indices)] = 0.0


class Activated(nn.Module):
    """Two layers with a function between."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head, self.function = nn.Conv1d(3, 6, 3, padding=1), nn.Conv1d(6, 2, 1), function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.first(x)))


class Parametric(nn.Module):
    """A slope for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slope, self.head = nn.Conv2d(3, 6, 3), nn.PReLU(6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.slope(self.first(x)))


class Normalised(nn.Module):
    """A normalisation between two convolutions."""

    def __init__(self, norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Conv1d(3, 12, 3, padding=1), norm(), nn.Conv1d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.first(x)))


class RootMeanSquare(nn.Module):
    """A feed-forward stack with a root mean square normalisation over its features."""

    def __init__(self, *, affine: bool) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(5, 9), nn.Linear(9, 3)
        self.norm = nn.RMSNorm(9, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.tanh(self.first(x))))


class ResNeXt(nn.Module):
    """A bottleneck whose middle convolution has groups, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.narrow, self.middle = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 12, 1),
            nn.Conv2d(12, 12, 3, 1, 1, groups=3),
        )
        self.norm, self.wide, self.head = nn.BatchNorm2d(12), nn.Conv2d(12, 8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.norm(self.middle(torch.relu(self.narrow(x)))))
        return self.head((x + self.wide(y)).mean((2, 3)))


class ConvNeXt(nn.Module):
    """A depthwise convolution, layer normalisation over channels, two Linear layers and a scale for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise, self.norm = (
            nn.Conv2d(3, 7, 2, 2),
            nn.Conv2d(7, 7, 3, 1, 1, groups=7),
            nn.LayerNorm(7),
        )
        self.up, self.down, self.scale = nn.Linear(7, 13), nn.Linear(13, 7), nn.Parameter(torch.ones(7, 1, 1))
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
        return self.head((x + self.scale * y).mean((2, 3)))


class Multiplied(nn.Module):
    """A depthwise convolution that makes two channels of each."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise, self.head = nn.Conv1d(3, 5, 3), nn.Conv1d(5, 10, 3, groups=5), nn.Conv1d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.depthwise(torch.relu(self.stem(x)))))


class GroupedInput(nn.Module):
    """Groups on the input itself: its channels stay, those of each group's outputs go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(4, 12, 3, groups=2), nn.Conv1d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)))


class GroupedTransposed(nn.Module):
    """A transposed convolution with groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 2, 2)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2, groups=groups)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.up(torch.relu(self.down(x)))))


class UnbalancedGroups(nn.Module):
    """Two branches of different widths side by side in front of a convolution with groups."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
        self.grouped, self.head = nn.Conv2d(12, 6, 3, groups=3), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.grouped(torch.cat([self.left(x), self.right(x)], 1))))


class Shuffled(nn.Module):
    """ShuffleNet: groups, their channels mixed by two views, groups again."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 12, 1, groups=2), nn.Conv2d(12, 12, 3, groups=2)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.head(torch.relu(self.second(x)))


class Branches(nn.Module):
    """ShuffleNet 2: one half of the channels passes, the other one goes through a branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.narrow, self.depthwise, self.wide = (
            nn.Conv2d(4, 6, 1),
            nn.Conv2d(6, 6, 3, 1, 1, groups=6),
            nn.Conv2d(6, 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, 1)
        right = self.wide(self.depthwise(torch.relu(self.narrow(right))))
        return self.head(torch.cat([left, right], 1))


class Res2Net(nn.Module):
    """Each part of the channels is added to the next one before its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 12, 1)
        self.parts = nn.ModuleList(nn.Conv2d(4, 4, 3, 1, 1) for _ in range(2))
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = torch.relu(self.enter(x)).chunk(3, 1)
        outputs, last = [first], first
        for part, convolution in zip(rest, self.parts, strict=True):
            last = torch.relu(convolution(part + last))
            outputs.append(last)
        return self.head(torch.cat(outputs, 1))


class Excited(nn.Module):
    """Squeeze and excitation: a gate for each channel, from the means of all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(3, 9, 3), nn.Conv2d(9, 4, 1), nn.Conv2d(4, 9, 1)
        self.head = nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gates = F.hardsigmoid(self.excite(torch.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(x * gates)


class Unet(nn.Module):
    """Down, up by interpolation, and a skip."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.enter, self.down, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 7, 2, 2), nn.Conv2d(13, 2, 1)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.enter(x))
        up = F.interpolate(torch.relu(self.down(x)), scale_factor=2, mode=self.mode)
        return self.head(torch.cat([x, up], 1))


class Shuffle(nn.Module):
    """Superresolution: four channels make one of twice the size."""

    def __init__(self, *, down: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3 if down else 12, 3, padding=1)
        self.shuffle = nn.PixelUnshuffle(2) if down else nn.PixelShuffle(2)
        self.head = nn.Conv2d(12 if down else 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shuffle(torch.relu(self.first(x))))


class Pooled(nn.Module):
    """A statistic over time in front of the head."""

    def __init__(self, statistic: Callable[[Tensor], Tensor], parts: int = 1) -> None:
        super().__init__()
        self.first, self.head, self.statistic = nn.Conv1d(3, 7, 3), nn.Linear(7 * parts, 3), statistic

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.statistic(torch.tanh(self.first(x))))


def mean_and_deviation(x: Tensor) -> Tensor:
    """Pooling of x-vectors."""
    return torch.cat([x.mean(-1), torch.sqrt(x.var(-1) + 1e-5)], -1)


def variance_and_mean(x: Tensor) -> Tensor:
    """Both in one call."""
    return torch.cat(torch.var_mean(x, -1), -1)


def best_two(x: Tensor) -> Tensor:
    """The sum of the two largest values over time."""
    return x.topk(2, -1).values.sum(-1)


def sorted_last(x: Tensor) -> Tensor:
    """The second largest value over time."""
    return x.sort(-1).values[..., -2]


class Bag(nn.Module):
    """A bag of embeddings."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.table, self.hidden, self.head = nn.EmbeddingBag(11, 9, mode=mode), nn.Linear(9, 7), nn.Linear(7, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.table(tokens))))


class Unfolded(nn.Module):
    """Patches by `unfold`, as a convolution written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 5, 3), nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(torch.relu(self.first(x)), 2)  # (B, 5 * 4, L)
        return self.head(patches.transpose(1, 2)).mean(1)


ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.hardswish, F.logsigmoid, F.rrelu, F.mish, F.softplus, F.selu, F.celu, F.softsign, F.hardshrink, F.tanhshrink,
    torch.erf, torch.expm1, torch.log1p, F.hardsigmoid, F.silu,
)  # fmt: skip

IMAGE, SIGNAL = (3, 8, 8), (3, 12)
PEERS = [
    *(
        Peer(
            f"activation {getattr(function, '__name__', function)}",
            lambda f=function: Activated((lambda x: torch.log1p(x.abs())) if f is torch.log1p else f),
            SIGNAL,
            {"first": [1, 4]},
            ("first",),
        )
        for function in ACTIVATIONS
    ),
    Peer("PReLU", Parametric, IMAGE, {"first": [0, 3]}, ("first",)),
    Peer(
        "GroupNorm, a group per channel",
        lambda: Normalised(lambda: nn.GroupNorm(12, 12)),
        SIGNAL,
        {"first": [2, 7], "norm": [2, 7]},
        ("first",),
    ),
    Peer(
        "GroupNorm",
        lambda: Normalised(lambda: nn.GroupNorm(3, 12)),
        SIGNAL,
        {"first": [1, 5, 9], "norm": [1, 5, 9]},
        ("first",),
    ),
    Peer(
        "GroupNorm, one group",
        lambda: Normalised(lambda: nn.GroupNorm(1, 12)),
        SIGNAL,
        {"first": [1, 5], "norm": [1, 5]},
        ("first",),
    ),
    Peer(
        "GroupNorm, not affine",
        lambda: Normalised(lambda: nn.GroupNorm(12, 12, affine=False)),
        SIGNAL,
        {"first": [2, 7]},
        ("first",),
    ),
    Peer(
        "InstanceNorm",
        lambda: Normalised(lambda: nn.InstanceNorm1d(12, affine=True)),
        SIGNAL,
        {"first": [2, 7], "norm": [2, 7]},
        ("first",),
    ),
    Peer(
        "InstanceNorm, running",
        lambda: Normalised(lambda: nn.InstanceNorm1d(12, affine=True, track_running_stats=True)),
        SIGNAL,
        {"first": [2, 7], "norm": [2, 7]},
        ("first",),
    ),
    Peer(
        "InstanceNorm, not affine",
        lambda: Normalised(lambda: nn.InstanceNorm1d(12)),
        SIGNAL,
        {"first": [2, 7]},
        ("first",),
    ),
    Peer("RMSNorm", lambda: RootMeanSquare(affine=True), (4, 5), {"first": [0, 5]}, ("first",)),
    Peer("RMSNorm, not affine", lambda: RootMeanSquare(affine=False), (4, 5), {"first": [0, 5]}, ("first",)),
    Peer(
        "ResNeXt",
        ResNeXt,
        IMAGE,
        {"narrow": [1, 5, 9], "middle": [2, 6, 10], "norm": [2, 6, 10], "wide": [3], "stem": [3]},
        ("narrow", "middle", "stem"),
    ),
    Peer("ConvNeXt", ConvNeXt, IMAGE, {"up": [1, 7]}, ("up",)),
    Peer("depthwise with a multiplier", Multiplied, SIGNAL, {"stem": [2], "depthwise": [4, 5]}, ("stem",)),
    Peer("groups on the input", GroupedInput, (4, 12), {"first": [1, 7]}, ("first",)),
    Peer("transposed with groups", lambda: GroupedTransposed(2), IMAGE, {"down": [1, 5], "up": [2]}, ("down", "up")),
    Peer("transposed, depthwise", lambda: GroupedTransposed(8), IMAGE, {"down": [1, 5], "up": [1, 5]}, ("down",)),
    Peer(
        "unbalanced groups",
        UnbalancedGroups,
        IMAGE,
        {"left": [1], "right": [1, 5], "grouped": [0, 2, 4]},
        ("left", "grouped"),
    ),
    Peer("channel shuffle", Shuffled, (4, 8, 8), {"first": [1, 7, 4, 10], "second": [0, 6]}, ("first", "second")),
    Peer(
        "two branches",
        Branches,
        IMAGE,
        {"narrow": [2], "depthwise": [2], "stem": [1, 5], "wide": [1]},
        ("narrow", "stem"),
    ),
    Peer("Res2Net", Res2Net, IMAGE, {"enter": [1, 5, 9], "parts.0": [1], "parts.1": [1]}, ("enter",)),
    Peer("squeeze and excitation", Excited, IMAGE, {"stem": [4], "squeeze": [1]}, ("stem", "squeeze")),
    *(
        Peer(f"U-net, {mode}", lambda m=mode: Unet(m), IMAGE, {"enter": [1], "down": [2, 5]}, ("enter", "down"))
        for mode in ("nearest", "bilinear", "bicubic", "area", "nearest-exact")
    ),
    Peer("pixel shuffle", Shuffle, IMAGE, {"first": [4, 5, 6, 7]}, ("first",)),
    Peer("pixel unshuffle", lambda: Shuffle(down=True), IMAGE, {"first": [1]}, ("first",)),
    Peer("mean and deviation", lambda: Pooled(mean_and_deviation, 2), SIGNAL, {"first": [1, 2]}, ("first",)),
    Peer("variance and mean", lambda: Pooled(variance_and_mean, 2), SIGNAL, {"first": [1, 2]}, ("first",)),
    Peer("deviation", lambda: Pooled(lambda x: x.std(-1)), SIGNAL, {"first": [1, 2]}, ("first",)),
    Peer("median", lambda: Pooled(lambda x: x.median(-1).values), SIGNAL, {"first": [1, 2]}, ("first",)),
    Peer("topk", lambda: Pooled(best_two), SIGNAL, {"first": [1, 2]}, ("first",)),
    Peer("sort over time", lambda: Pooled(sorted_last), SIGNAL, {"first": [1, 2]}, ("first",)),
    *(
        Peer(f"bag of embeddings, {mode}", lambda m=mode: Bag(m), (6,), {"hidden": [3, 4]}, ("hidden",), tokens=True)
        for mode in ("sum", "mean", "max")
    ),
    Peer("unfold", Unfolded, IMAGE, {"first": [1]}, ("first",)),
]
