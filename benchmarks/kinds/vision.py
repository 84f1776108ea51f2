"""Classes of `torchvision` at small size, which the channels of convolutions leave."""

from __future__ import annotations

from functools import partial
from typing import Any

import torchvision

from benchmarks.kinds.kind import Kind, image

_NAMES = (
    "alexnet", "vgg11_bn", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "squeezenet1_1",
    "googlenet", "mobilenet_v2", "mobilenet_v3_small",
    "shufflenet_v2_x0_5", "mnasnet0_5", "efficientnet_b0", "regnet_y_400mf",
    "regnet_x_400mf", "convnext_tiny",
)  # fmt: skip


def _build(name: str) -> Any:
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return getattr(torchvision.models, name)(weights=None, num_classes=10, **options)


KINDS = [Kind(name, partial(_build, name), image(64), length=1, max_length=1) for name in _NAMES]
