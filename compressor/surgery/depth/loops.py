"""Lets groups of layers that share all weights run as one layer in a loop that ends early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from compressor.errors import MethodError
from compressor.nn.attention.plain import plain_attention
from compressor.nn.halting import HaltingLayer
from compressor.nn.record import LayerRecord, of_another_task, parse
from compressor.surgery.depth.chains import number_layers
from compressor.surgery.depth.stacks import CONTAINERS
from compressor.surgery.refit.calibration import evaluating

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from compressor.surgery.depth.ties import Group

KIND = "halting"
"""Of the records: the list, the places of each loop's layers in it, steps, threshold and axis of the batch."""
_ATOL, _RTOL = 1e-4, 1e-3
"""How near a loop of all steps has to come to the layers one behind the other; other things differ by far more."""


class _HaltingRecord(LayerRecord):
    kind: Literal["halting"]
    module: Annotated[str, Field(min_length=1)]
    groups: Annotated[list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]], Field(min_length=1)]
    steps: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    threshold: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    batch_axis: Annotated[int, Field(ge=0)]


def refuse_apart(groups: Sequence[Group], recurrent: set[str]) -> None:
    """Raise `MethodError` for groups that cannot be a loop.

    Args:
        groups: Of layers.
        recurrent: Names of the stacks that are recurrent modules.
    """
    for group in groups:
        if group.stack in recurrent:
            raise MethodError(
                f"`{group.name}` are layers of a recurrent module, and each has a state of its own, which a loop over "
                "layers has no place for",
                hint="leave `exit` out, or name other stacks in `targets`",
            )
        places = [layer.index for layer in group.layers]
        if places != list(range(places[0], places[0] + len(places))):
            raise MethodError(
                f"`{group.name}` do not run one behind the other, so they are no loop",
                hint="give `groups` of neighbours, or leave `exit` out",
            )


def loop_record(stack: str, groups: Sequence[Group], steps: int | None, threshold: float, axis: int) -> dict[str, Any]:
    """The JSON record of the loops of one list; without `steps` each makes as many as it has layers."""
    places = [[layer.index for layer in group.layers] for group in groups]
    return {
        "kind": KIND,
        "module": stack,
        "groups": places,
        "steps": [steps or len(group) for group in places],
        "threshold": threshold,
        "batch_axis": axis,
    }


def apply_loop_record(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Replace each group of layers by its first one in a loop, in place.

    Raises:
        CheckpointError: The record does not fit the model.
    """
    fields = parse(_HaltingRecord, record)
    stack = dict(model.named_modules()).get(fields.module)
    places = [place for group in fields.groups for place in group]
    if (
        not isinstance(stack, CONTAINERS)
        or places != sorted(set(places))
        or places[-1] >= len(stack._modules)
        or len(fields.steps) != len(fields.groups)
    ):
        raise of_another_task(f"the record puts layers of `{fields.module}` into loops that this model does not have")
    layers = list(stack._modules.items())
    for group, steps in zip(fields.groups, fields.steps, strict=True):
        name, layer = layers[group[0]]
        assert layer is not None
        layers[group[0]] = name, HaltingLayer(layer, steps, fields.threshold, fields.batch_axis).train(layer.training)
    gone = {place for group in fields.groups for place in group[1:]}
    number_layers(model, stack, [item for place, item in enumerate(layers) if place not in gone])


def batch_axis(
    model: nn.Module, examples: Sequence[tuple[Tensor, ...]], stack: str, place: int, device: torch.device
) -> int:
    """The axis of samples of what enters a layer of a list, found by running the model with two and with three.

    Args:
        model: With the layers in their list.
        examples: Inputs of two and of three samples of one length.
        stack: Name of the list.
        place: Of the layer in it.
        device: Of the model.

    Raises:
        MethodError: What enters first is no tensor, or none of its axes follows the batch.
    """
    shapes: list[tuple[int, ...]] = []
    layer = list(model.get_submodule(stack)._modules.values())[place]
    assert layer is not None

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        shapes.append(tuple(args[0].shape) if args and isinstance(args[0], torch.Tensor) else ())

    with layer.register_forward_pre_hook(hook), evaluating(model), plain_attention():
        for example in examples:
            model(*(part.to(device) for part in example))
    moving = [axis for axis, pair in enumerate(zip(*shapes, strict=False)) if pair == (2, 3)]
    if len(shapes) != 2 or len(moving) != 1:
        raise MethodError(
            f"what enters the layers of `{stack}` has no axis of samples as the first argument, so they cannot end "
            "by themselves",
            hint="let the layers read a tensor of all samples, called once each; or leave `exit` out",
        )
    return moving[0]


def refuse_otherwise(
    apart: nn.Module, changed: nn.Module, inputs: tuple[Tensor, ...], device: torch.device, *, what: str = "exit"
) -> None:
    """Raise `MethodError` if layers in one module do not give what they give one behind the other in a list.

    Args:
        apart: With the layers in a list.
        changed: With loops that make all steps, or with a mix that hears the last layer alone.
        inputs: An example.
        device: Of both models.
        what: The option that asked for it.
    """
    placed = [part.to(device) for part in inputs]
    hint = f"let `forward` do nothing but `for layer in self.layers: x = layer(x, ...)`; or leave `{what}` out"
    try:
        with evaluating(changed), plain_attention():
            found = _tensors(changed(*placed))
    except Exception as error:  # the user's own code, with fewer layers than it may expect
        raise MethodError(f"the layers cannot run as one module: {type(error).__name__}: {error}", hint=hint) from error
    with evaluating(apart), plain_attention():
        wanted = _tensors(apart(*placed))
    fits = len(found) == len(wanted) and all(
        mine.shape == other.shape and torch.allclose(mine, other, atol=_ATOL, rtol=_RTOL, equal_nan=True)
        for mine, other in zip(found, wanted, strict=False)
    )
    if not fits:
        raise MethodError(
            "the layers in one module give other outputs than one behind the other in their list: something of each "
            "place stands between them or in them (a shortcut around a layer, a norm, a buffer, another argument)",
            hint=hint,
        )


def _tensors(outputs: Any) -> list[Tensor]:
    from torch.utils._pytree import tree_leaves

    return [leaf.float() for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
