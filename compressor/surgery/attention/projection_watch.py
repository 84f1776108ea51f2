"""What goes in and out of the projections of third-party attention while it runs."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from compressor.surgery.attention.site import AttentionSite

    Arguments = Mapping[str, Any]


def call_by_name(module: nn.Module, arguments: Arguments) -> Any:
    """Call a module with arguments by name, also those that it takes by place only."""
    bound = inspect.signature(type(module).forward).bind_partial(module)
    bound.arguments.update(arguments)
    return module(*bound.args[1:], **bound.kwargs)


@dataclass
class Seen:
    """What went in and out of the projections in one run."""

    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    """Role -> what the layer was given, call by call."""
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """Role of queries, keys and values -> what came out."""

    @property
    def context(self) -> Tensor:
        """What the output projection was given."""
        return self.inputs["output"][0]


class Refused(Exception):
    """What was seen speaks against a conversion; the message is the reason."""


class ProjectionWatch:
    """Runs an attention with its four projections under watch, and with other inputs or values if asked to."""

    def __init__(self, model: nn.Module, site: AttentionSite) -> None:
        """Prepare; `site` is of kind `declared`."""
        assert site.parts is not None
        self._module = model.get_submodule(site.name)
        self._site = site
        self._layers = {
            role: self._module.get_submodule(getattr(site.parts, role)) for role in ("query", "key", "value", "output")
        }

    def run(self, arguments: Arguments, *, x: Tensor | None = None, value: Tensor | None = None) -> Seen:
        """One run; `x` replaces what queries, keys and values are made of, `value` the values.

        Raises:
            Refused: A projection is not called just once.
        """
        seen = Seen()
        with self._watched(seen, x, value):
            call_by_name(self._module, arguments)
        for role, layer in self._layers.items():
            times = len(seen.inputs.get(role, ()))
            if times != 1:
                name = getattr(self._site.parts, role)
                raise Refused(f"its `{name}`, a {type(layer).__name__}, is called {times} times in one call, not once")
        return seen

    @contextmanager
    def _watched(self, seen: Seen, x: Tensor | None, value: Tensor | None) -> Iterator[None]:
        roles: dict[int, tuple[nn.Module, list[str]]] = {}
        for role, layer in self._layers.items():
            roles.setdefault(id(layer), (layer, []))[1].append(role)

        def watch(layer: nn.Module, roles_of_layer: list[str]) -> Callable[[Tensor], Tensor]:
            original = layer.forward

            def forward(layer_input: Tensor) -> Tensor:
                for role in roles_of_layer:
                    seen.inputs.setdefault(role, []).append(layer_input)
                result: Tensor = original(layer_input if x is None or roles_of_layer == ["output"] else x)
                if roles_of_layer == ["output"]:
                    return result
                sizes = [self._size(role) for role in roles_of_layer]
                parts = dict(zip(roles_of_layer, result.split(sizes, -1), strict=True))
                if value is not None and "value" in roles_of_layer:
                    parts["value"] = value
                seen.outputs.update(parts)
                return torch.cat([parts[role] for role in roles_of_layer], -1)

            return forward

        for layer, roles_of_layer in roles.values():
            layer.forward = watch(layer, roles_of_layer)
        try:
            yield
        finally:
            for layer, _ in roles.values():
                del layer.forward

    def _size(self, role: str) -> int:
        part = {"query": self._site.query, "key": self._site.key, "value": self._site.value}[role]
        return part.heads * part.width
