"""The recipe that fits what is in a model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

from compressor.errors import CompressorError
from compressor.nn.recurrent.layers import recurrent_modules
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.units import removal
from compressor.surgery.units.choice import Amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.progress import Progress

_WIDE = 64
"""Units from which on widths are rounded to 8, which vector units like."""
_WIDENS = 2
"""Times as many features as come in, from which on a layer is taken for the first of a feed-forward block."""


def recipe(name: str, model: nn.Module, example: tuple[Tensor, ...], progress: Progress) -> tuple[str, str]:
    """The text of a recipe, and what it does in a few words.

    Half of the units of recurrent layers if they can be removed, or else half of the heads of attention and of the
    width of feed-forward blocks, then retraining on the original's outputs; 8 bits for all.

    Args:
        name: Of the recipe.
        model: Takes flat tensors.
        example: Its inputs.
        progress: Shows what is tried.
    """
    with progress.bar("trying what can be removed", None):
        removable, refused = _units(model, example)
        heads = [site for site in attention_sites(model).attentions if site.reason is None and site.heads > 1]
        wide = [] if removable else _wide_layers(model, example)
    if removable:
        steps, what = _unit_steps(model, removable, refused), "half of the recurrent units"
    elif heads or wide:
        steps, what = _of_transformer(wide, heads=bool(heads))
    else:
        return "\n".join([*_head(name, "8 bits; nothing is trained."), "steps: []", *_EXPORTS]), "8 bits"
    head = _head(name, f"{what[0].upper()}{what[1:]} removed, retrained on the original's outputs, 8 bits.")
    return "\n".join([*head, "steps:", *steps, *_RETRAIN, *_EXPORTS]), f"{what} removed, 8 bits"


def _units(model: nn.Module, example: tuple[Tensor, ...]) -> tuple[list[str], list[str]]:
    """Recurrent layers of which units can be removed, and the others."""
    names = list(recurrent_modules(model))
    removable = [name for name in names if _removes(model, example, name)]
    return removable, [name for name in names if name not in removable]


def _wide_layers(model: nn.Module, example: tuple[Tensor, ...]) -> list[str]:
    """Globs of Linear layers that widen (as those of a feed-forward block do), of which features can be removed."""
    globs: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.out_features >= _WIDENS * module.in_features:
            globs.setdefault(re.sub(r"\d+", "*", name), []).append(name)
    return [glob for glob, names in globs.items() if _removes(model, example, names[0])]


def _removes(model: nn.Module, example: tuple[Tensor, ...], name: str) -> bool:
    try:
        removal.prune(model, {}, [example], names=[name], amount=Amount(count=1))
    except CompressorError:
        return False
    return True


def _of_transformer(wide: Sequence[str], *, heads: bool) -> tuple[list[str], str]:
    """Steps for attention and the feed-forward blocks between, and what they do."""
    steps: list[str] = []
    if heads:
        steps += ["  - method: heads", "    ratio: 0.5"]
    if wide:
        targets = ", ".join(f'"{glob}"' for glob in wide)
        steps += ["  - method: magnitude", "    prune: units", "    ratio: 0.5", f"    targets: [{targets}]"]
    parts = [*(["heads of attention"] if heads else []), *(["feed-forward width"] if wide else [])]
    return steps, f"half of the {' and of the '.join(parts)}"


def _unit_steps(model: nn.Module, removable: Sequence[str], refused: Sequence[str]) -> list[str]:
    layers = recurrent_modules(model)
    lines = ["  - method: magnitude", "    prune: units", "    ratio: 0.5"]
    if all(layers[name].hidden_size >= _WIDE for name in removable):
        lines.append("    round_to: 8")
    if refused:
        names = ", ".join(f'"{name}"' for name in refused)
        lines.append(f"    ignore: [{names}]  # units of these cannot be removed")
    return lines


def _head(name: str, description: str) -> list[str]:
    return ["schema_version: 1", f"name: {name}", f"description: {description}"]


_RETRAIN = [
    "  - method: retrain",
    "    epochs: 5",
    "    schedule: cosine",
    "    distill: true           # the original teaches,",
    "    distill_weight: 1.0     # without labels; TODO: 0.5 with a `loss` of yours",
    "    distill_loss: mse       # TODO: kl if the outputs are logits, cosine if they are embeddings",
]
_EXPORTS = [
    "exports:",
    "  - format: onnx            # TODO: ort, mnn, ncnn, litert, executorch, c",
    "    precision: int8",
    "# limits:                   # TODO: what the exported file must reach; a miss gives exit code 1",
    "#   metric_drop: 0.01",
    "",
]
