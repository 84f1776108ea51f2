"""What an argument of a model may be, as Python text in `batch` and `length`: from its name and the model's layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from compressor.nn.own_code import is_own
from compressor.nn.recurrent.layers import directions, is_layer, is_step_module

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEIGHTS = (28, 32, 16, 40, 48, 64, 80, 128, 224)
"""Of pictures; nothing in a convolution tells it."""
_MOST = 24


def candidates(name: str, model: nn.Module) -> list[str]:
    """Texts that give a tensor (or a tuple of states) for the argument `name`, the likeliest first."""
    word = name.lower()
    if "mask" in word:
        of_features = [f"torch.ones(batch, length, {width})" for width in _own_widths(model)]
        return [*_masks(word), *of_features]
    if "len" in word:
        return ["torch.full((batch,), length)"]
    found = list(dict.fromkeys(_of_layers(model)))
    if word.startswith(("h0", "hx", "hidden", "state", "c0", "initial")):
        found = [*dict.fromkeys(_states(model)), *found]
    elif word.endswith(("ids", "tokens", "letters", "text", "words", "chars", "indices")):
        found.sort(key=lambda text: "randint" not in text)  # stable
    return [*dict.fromkeys([*found[:_MOST], "torch.randn(batch, length)", *_of_attributes(model)])]


def _masks(word: str) -> list[str]:
    ones, zeros = "torch.ones(batch, length, dtype=torch.{})", "torch.zeros(batch, length, dtype=torch.{})"
    neutral = zeros if "pad" in word else ones
    texts = [neutral.format("long" if "attention" in word else "bool"), neutral.format("bool"), neutral.format("long")]
    return list(dict.fromkeys([*texts, neutral.format("float32"), "torch.zeros(length, length)"]))


def _of_layers(model: nn.Module) -> Iterator[str]:
    """Inputs of each layer, in the order of the model; orders of axes that are less usual come last."""
    later: list[str] = []
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield f"torch.randint({module.num_embeddings}, (batch, length))"
            later += [
                f"torch.randint({module.num_embeddings}, (length, batch))",
                f"torch.randint({module.num_embeddings}, (batch,))",
                f"torch.randint({module.num_embeddings}, (batch, length, 4))",
            ]
        elif is_layer(module):
            orders = ["batch, length", "length, batch"]
            yield f"torch.randn({orders.pop(0 if module.batch_first else 1)}, {module.input_size})"
            later.append(f"torch.randn({orders[0]}, {module.input_size})")
        elif isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            yield f"torch.randn(batch, {module.in_channels}, length)"
            later.append(f"torch.randn(batch, length, {module.in_channels})")
            later += ["torch.randn(batch, length)"] if module.in_channels == 1 else []
        elif isinstance(module, nn.Conv2d):
            later += _pictures(module.in_channels)
        else:
            width = _width(module)
            if width is not None:
                yield f"torch.randn(batch, length, {width})"
                later += [f"torch.randn(length, batch, {width})", f"torch.randn(batch, {width})"]
    yield from (f"torch.randn(batch, length, {width})" for width in _own_widths(model))
    yield from later


def _own_widths(model: nn.Module) -> list[int]:
    """Features that matrices of the model's own code take, which are parameters and no layers."""
    widths = [
        int(parameter.size(1))
        for module in model.modules()
        if is_own(module)
        for parameter in module.parameters(recurse=False)
        if parameter.dim() == 2
    ]
    return list(dict.fromkeys(widths))


def _width(module: nn.Module) -> int | None:
    """Features of the input of a layer that takes (..., features)."""
    if is_step_module(module):
        return int(module.input_size)
    if isinstance(module, nn.Linear):
        return int(module.in_features)
    if isinstance(module, nn.MultiheadAttention):
        return int(module.embed_dim)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return int(module.normalized_shape[0])
    return None


def _of_attributes(model: nn.Module) -> list[str]:
    """Widths that no layer tells, such as of frames that a convolution runs over: numbers that the model was given."""
    widths = [value for value in vars(model).values() if isinstance(value, int) and not isinstance(value, bool)]
    return [f"torch.randn(batch, length, {width})" for width in widths if width > 1]


def _pictures(channels: int) -> list[str]:
    wide = [f"torch.randn(batch, {channels}, {height}, length)" for height in _HEIGHTS]
    tall = [f"torch.randn(batch, {channels}, length, {height})" for height in _HEIGHTS]
    flat = [f"torch.randn(batch, length, {height})" for height in _HEIGHTS] if channels == 1 else []
    square = [f"torch.randn(batch, {channels}, {size}, {size})" for size in (32, 28, 64, 224)]
    return [*wide, *flat, *tall, *square]


def _states(model: nn.Module) -> Iterator[str]:
    for module in model.modules():
        if is_layer(module):
            layers = module.num_layers * directions(module)
            state = f"torch.zeros({layers}, batch, {module.hidden_size})"
            yield f"({state}, {state})" if isinstance(module, nn.LSTM) else state
        elif is_step_module(module):
            state = f"torch.zeros(batch, {module.hidden_size})"
            yield f"({state}, {state})" if isinstance(module, nn.LSTMCell) else state
