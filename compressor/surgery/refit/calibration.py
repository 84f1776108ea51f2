"""What the layers of a model are given while calibration batches run through it, one batch at a time."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compressor.nn.hooks import hooked
from compressor.nn.recurrent.layers import RECURRENT, cell_of, has_own_forward, is_layer, is_step_module
from compressor.nn.recurrent.replay import unroll

if TYPE_CHECKING:
    from compressor.nn.recurrent.cells import StepModule

Batches = Sequence[tuple[Tensor, ...]]
"""Inputs of the model; gone through several times, in order."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST_ELEMENTS = 1 << 24
"""Numbers that an unfolded piece of a convolution's input may have."""


@dataclass(frozen=True)
class Call:
    """One call of a module."""

    arguments: Mapping[str, Any]
    """By name, in the order of `forward`."""


class _Enough(BaseException):
    """Ends a forward pass once all that is wanted was seen; no `except Exception` of the user's stops it."""


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; every module is in its own mode again afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def calls(
    model: nn.Module, names: Sequence[str], inputs: tuple[Tensor, ...], *, most: int | None = None
) -> list[tuple[str, Call]]:
    """Run the model on one batch; gives the calls of the named modules in order, at most so many of them."""
    seen: list[tuple[str, Call]] = []
    parameter = next(model.parameters(), None)
    if parameter is not None:
        inputs = tuple(part.to(parameter.device) for part in inputs)

    def record(name: str, call: Call) -> None:
        seen.append((name, call))
        if most is not None and len(seen) >= most:
            raise _Enough

    with contextlib.suppress(_Enough), watching(model, names, record):
        model(*inputs)
    return seen


@contextmanager
def watching(model: nn.Module, names: Sequence[str], record: Callable[[str, Call], None]) -> Iterator[None]:
    """Within the block `record` is told of every call of the named modules, before it is computed."""

    def watch(name: str, module: nn.Module) -> Any:
        signature = inspect.signature(module.forward)

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # Detached from what comes later: an in-place operation on the input would change what was seen.
            args, kwargs = tree_map_only(Tensor, torch.clone, (args, kwargs))
            record(name, Call(signature.bind(*args, **kwargs).arguments))

        return module.register_forward_pre_hook(hook, with_kwargs=True)

    subclassed = {name for name in names if has_own_forward(model.get_submodule(name))}
    handles = (watch(name, model.get_submodule(name)) for name in names if name not in subclassed)
    classes = {id(model.get_submodule(name)): name for name in subclassed}
    with hooked(handles), _watched_classes(classes, record):
        yield


@contextmanager
def _watched_classes(names: Mapping[int, str], record: Callable[[str, Call], None]) -> Iterator[None]:
    """Calls of PyTorch's own `forward` by recurrent modules with another one around it; `names` by identity."""

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(self: nn.Module, input: Any, hx: Any = None) -> Any:  # noqa: A002 the layer's own argument name
            if id(self) in names:
                arguments = {"input": input} if hx is None else {"input": input, "hx": hx}
                record(names[id(self)], Call(tree_map_only(Tensor, torch.clone, arguments)))
            return original(self, input, hx)

        return forward

    originals = {kind: kind.forward for kind in RECURRENT} if names else {}
    try:
        for kind, original in originals.items():
            kind.forward = watched(original)
        yield
    finally:
        for kind, original in originals.items():
            kind.forward = original


def consumed(module: nn.Module, call: Call) -> Iterator[tuple[str, Tensor]]:
    """What each weight of a module is applied to in one call: local parameter name -> (N, positions of its axis 1).

    Steps past the end of a packed sequence do not count; all steps of a padded one do.
    """
    arguments = list(call.arguments.values())
    if isinstance(module, nn.Linear):
        yield "weight", arguments[0].reshape(-1, module.in_features)
    elif isinstance(module, CONVOLUTIONS):
        yield "weight", arguments[0].movedim(-1 - len(module.kernel_size), -1).reshape(-1, module.in_channels)
    elif is_step_module(module):
        inputs, hidden = step_inputs(module, call)
        yield "weight_ih", inputs
        yield "weight_hh", hidden
    elif is_layer(module):
        for run in unroll(module, *arguments):
            yield run.part.names["weight_ih"], run.inputs
            yield run.part.names["weight_hh"], run.previous
            if "weight_hr" in run.part.names:
                yield run.part.names["weight_hr"], run.projected


def produced(module: Any, call: Call) -> Tensor:
    """What a Linear or convolution gave in one call (N, features), computed again."""
    axis = -1 if isinstance(module, nn.Linear) else -1 - len(module.kernel_size)
    result: Tensor = type(module).forward(module, *call.arguments.values())
    return result.movedim(axis, -1).flatten(0, -2)


def step_inputs(module: StepModule, call: Call) -> tuple[Tensor, Tensor]:
    """Inputs x (B, I) and states h (B, H) of one step."""
    inputs = call.arguments["input"]
    hx = call.arguments.get("hx")
    inputs = inputs.reshape(-1, module.input_size)
    if hx is None:
        return inputs, inputs.new_zeros(len(inputs), module.hidden_size)
    return inputs, cell_of(module).unpack(hx)[0].reshape(-1, module.hidden_size)


def patches(module: Any, call: Call) -> Iterator[Tensor]:
    """What a convolution's flattened weight (O, C * K) is applied to, in pieces (N, C * K) of bounded size."""
    inputs = next(iter(call.arguments.values()))
    axes = len(module.kernel_size)
    if inputs.dim() == axes + 1:
        inputs = inputs.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    for axis, (size, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), start=2
    ):
        padded = padded.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    # (B, C, *positions, *kernel) -> (B, *positions, C, *kernel)
    windows = padded.movedim(1, 1 + axes)
    features = module.in_channels * math.prod(module.kernel_size)
    batch = max(1, _MOST_ELEMENTS // max(1, windows[0].numel()))
    for piece in windows.split(batch):
        yield piece.reshape(-1, features)
