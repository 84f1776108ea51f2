"""Classes of `torchvision` for classification, of its own layers at small widths and depths."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision import models as tv
from torchvision.models import efficientnet, mobilenetv3, regnet, resnet, vgg
from torchvision.models.convnext import CNBlockConfig

from benchmarks.kinds.kind import Kind, image

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = 10


def _residual(block: Any, **options: Any) -> nn.Module:
    return tv.ResNet(block, [1, 1, 1, 1], num_classes=CLASSES, **options)


def _with_small_head(model: Any) -> nn.Module:
    """Of models whose three wide Linear layers hold nearly all of their weights."""
    width = next(layer.in_features for layer in model.classifier if isinstance(layer, nn.Linear))
    model.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(width, 24), nn.ReLU(inplace=True), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, CLASSES)
    )
    return model


def _vgg(*, norm: bool) -> nn.Module:
    layers = vgg.make_layers([8, "M", 12, "M", 16, 16, "M", 24, "M"], batch_norm=norm)
    model: Any = tv.VGG(layers, num_classes=CLASSES, init_weights=False)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier[0] = nn.Linear(24 * 4, 8)
    return _with_small_head(model)


def _efficient(config: type[Any], last: int) -> nn.Module:
    settings = [config(1, 3, 1, 8, 8, 1), config(4, 3, 2, 8, 12, 2), config(4, 3, 2, 12, 16, 1)]
    return efficientnet.EfficientNet(settings, 0.2, num_classes=CLASSES, last_channel=last)


def _mobile(activation: str) -> nn.Module:
    settings = [
        mobilenetv3.InvertedResidualConfig(8, 3, 16, 8, True, activation, 1, 1, 1.0),
        mobilenetv3.InvertedResidualConfig(8, 5, 24, 12, False, activation, 2, 1, 1.0),
    ]
    return tv.MobileNetV3(settings, last_channel=32, num_classes=CLASSES)


def _regular(ratio: float | None) -> nn.Module:
    sizes = regnet.BlockParams.from_init_params(depth=4, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=ratio)
    return tv.RegNet(sizes, num_classes=CLASSES, stem_width=8)


def _windows(block: Any = None) -> nn.Module:
    options = {} if block is None else {"block": block, "downsample_layer": tv.swin_transformer.PatchMergingV2}
    return tv.SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=CLASSES, **options)


_BUILD: dict[str, Callable[[], nn.Module]] = {
    "AlexNet": lambda: _with_small_head(tv.AlexNet(CLASSES)),
    "VGG": partial(_vgg, norm=False),
    "VGG with batch normalisation": partial(_vgg, norm=True),
    "ResNet": partial(_residual, resnet.BasicBlock),
    "ResNet with bottlenecks": partial(_residual, resnet.Bottleneck, width_per_group=16),
    "ResNeXt": partial(_residual, resnet.Bottleneck, groups=8, width_per_group=4),
    "wide ResNet": partial(_residual, resnet.Bottleneck, width_per_group=48),
    "DenseNet": lambda: tv.DenseNet(8, (2, 3, 2), 16, num_classes=CLASSES),
    "SqueezeNet 1.0": lambda: tv.SqueezeNet("1_0", CLASSES),
    "SqueezeNet 1.1": lambda: tv.SqueezeNet("1_1", CLASSES),
    "GoogLeNet": lambda: tv.GoogLeNet(CLASSES, aux_logits=False, init_weights=False),
    "MobileNet 2": lambda: tv.MobileNetV2(CLASSES, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]),
    "MobileNet 3, ReLU": partial(_mobile, "RE"),
    "MobileNet 3, Hardswish": partial(_mobile, "HS"),
    "ShuffleNet 2": lambda: tv.ShuffleNetV2([2, 2, 2], [8, 16, 24, 32, 48], CLASSES),
    "MNASNet": lambda: tv.MNASNet(0.25, CLASSES),
    "EfficientNet": partial(_efficient, efficientnet.MBConvConfig, 32),
    "EfficientNet 2": partial(_efficient, efficientnet.FusedMBConvConfig, 32),
    "RegNet X": partial(_regular, None),
    "RegNet Y": partial(_regular, 0.25),
    "ConvNeXt": lambda: tv.ConvNeXt([CNBlockConfig(12, 16, 1), CNBlockConfig(16, None, 1)], num_classes=CLASSES),
    "vision transformer": lambda: tv.VisionTransformer(64, 16, 2, 4, 16, 24, num_classes=CLASSES),
    "Swin transformer": _windows,
}  # fmt: skip
KINDS = [Kind(name, build, image(64), length=1, max_length=1) for name, build in _BUILD.items()]
