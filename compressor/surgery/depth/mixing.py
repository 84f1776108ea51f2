"""Puts a linear map behind a stack, of its last layer or of all, and fits it to what a longer stack gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field

from compressor.nn.attention.plain import plain_attention
from compressor.nn.layer_mix import LayerMix
from compressor.nn.least_squares import Moments, Problem, choose_ridge
from compressor.nn.record import LayerRecord, Size, of_another_task, parse
from compressor.surgery.depth.chains import number_layers
from compressor.surgery.depth.stacks import CONTAINERS
from compressor.surgery.refit.calibration import evaluating

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.surgery.depth.chains import Site

KIND = "layer_mix"
"""Of the records: the list, the place of the first layer, how many there are, their width, and what is heard."""


_RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class _MixRecord(LayerRecord):
    kind: Literal["layer_mix"]
    module: Annotated[str, Field(min_length=1)]
    first: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1)]
    width: Size
    hears_all: bool


def mix_record(site: Site, count: int, width: int, *, hears_all: bool) -> dict[str, Any]:
    """The JSON record of a map behind the `count` layers that are left of a stack."""
    return {
        "kind": KIND,
        "module": site.name,
        "first": site.first,
        "count": count,
        "width": width,
        "hears_all": hears_all,
    }


def apply_mix_record(model: nn.Module, record: Mapping[str, Any]) -> LayerMix:
    """Put the layers of a list into one module with a map, in place, and give it; at first it changes nothing.

    Raises:
        CheckpointError: The record does not fit the model.
    """
    fields = parse(_MixRecord, record)
    stack = dict(model.named_modules()).get(fields.module)
    end = fields.first + fields.count
    before = list(stack._modules.items()) if isinstance(stack, CONTAINERS) else []
    chosen = [layer for _, layer in before[fields.first : end] if layer is not None]
    like = next((weight for layer in reversed(chosen) for weight in layer.parameters()), None)
    if stack is None or end > len(before) or like is None:
        raise of_another_task(f"the record mixes layers of `{fields.module}` that this model does not have")
    mix = LayerMix(chosen, fields.width, hears_all=fields.hears_all, device=like.device, dtype=like.dtype)
    mix.train(chosen[-1].training)
    number_layers(model, stack, [*before[: fields.first], (before[fields.first][0], mix), *before[end:]])
    return mix


def width_of(model: nn.Module, site: Site, inputs: tuple[Tensor, ...]) -> int:
    """Features of what leaves the last layer of a stack."""
    return _leaving(model, _last(model, site), inputs).shape[-1]


def fit(
    mix: LayerMix, model: nn.Module, original: nn.Module, site: Site, batches: Sequence[tuple[Tensor, ...]]
) -> None:
    """Give the map behind a shortened stack, in place, the weights that come nearest to what the whole one gave.

    Ridge regression of what the last layer alone misses, on what the map hears, at all positions (of padding too). The
    ridge is chosen by the halves of the data.

    Args:
        mix: In `model`, still at its start.
        model: The shortened one.
        original: With all layers of the stack.
        site: The stack of the original.
        batches: Inputs.
    """
    width = mix.mix.out_features
    place = mix.mix.weight.device
    halves = (Moments(mix.mix.in_features, width, place), Moments(mix.mix.in_features, width, place))
    heard: list[Tensor] = []
    with mix.mix.register_forward_pre_hook(lambda _module, args: heard.append(args[0])):
        for number, inputs in enumerate(batches):
            goal = _leaving(original, _last(original, site), inputs)
            heard.clear()
            _run(model, inputs)
            z = heard[0].flatten(0, -2).double()
            r = goal.flatten(0, -2).double() - z[:, -width:]
            if len(batches) > 1:
                halves[number % 2].add(z, r)
            else:
                for half in range(2):
                    halves[half].add(z[half::2], r[half::2])
    problem = Problem(torch.arange(mix.mix.in_features, device=place), slice(0, width), constant=True)
    ridge = choose_ridge(halves, problem, _RIDGES)
    solution = (halves[0] + halves[1]).solve(problem, ridge)
    with torch.no_grad():
        mix.mix.weight.add_(solution.weights.to(mix.mix.weight.dtype))
        mix.mix.bias.add_(solution.constant.to(mix.mix.bias.dtype))


def _last(model: nn.Module, site: Site) -> nn.Module:
    layers = [layer for layer in model.get_submodule(site.name)._modules.values() if layer is not None]
    return layers[site.first + site.count - 1]


def _leaving(model: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """What leaves a layer."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, result: Any) -> None:
        tensor = result[0] if isinstance(result, tuple) else result
        seen.append(tensor.clone())

    with layer.register_forward_hook(hook):
        _run(model, inputs)
    return seen[0]  # a site's layers are called once


def _run(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    device = next(model.parameters()).device
    with evaluating(model), plain_attention():
        model(*(part.to(device) for part in inputs))
