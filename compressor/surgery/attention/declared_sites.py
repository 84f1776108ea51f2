"""Reads what a task says of third-party attention, and checks it against the module."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from torch import nn

from compressor.errors import TaskError
from compressor.nn.attention.parts import LAYERS, AttentionParts
from compressor.nn.names import full_name
from compressor.nn.patterns import fits
from compressor.surgery.attention.site import AttentionSite, Projection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_OURS = __name__.partition(".")[0] + "."
_SHOWN = 8


def check_declared(model: nn.Module, declared: Mapping[str, AttentionParts]) -> None:
    """Find out that everything is as the task says.

    Raises:
        TaskError: A pattern fits no module, a path leads nowhere, or to something else than it should; the message
            says which.
    """
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for pattern in declared:
        if not any(fits(pattern, name) for name in names):
            near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.4)
            raise TaskError(
                f"`attention`: no module of the model fits `{pattern}`",
                hint=f"did you mean `{near[0]}`?" if near else f"it has {_some(name for name in names if name)}",
            )
    parts_of = declared_modules(model, declared)
    for name, module in model.named_modules():
        if id(module) in parts_of:
            declared_site(name, module, parts_of[id(module)])


def set_heads(model: nn.Module, site: AttentionSite, heads: int) -> None:
    """Set what a module holds about its number of heads; its weights are the caller's to change."""
    module: Any = model.get_submodule(site.name)
    if site.parts is None:
        module.num_heads = heads
        return
    for path in site.parts.head_attributes:
        owner, attribute = _owner(site.name, module, path)
        setattr(owner, attribute, heads)
    for path in site.parts.widths:
        owner, attribute = _owner(site.name, module, path)
        setattr(owner, attribute, getattr(owner, attribute) // site.heads * heads)


def declared_site(name: str, module: nn.Module, parts: AttentionParts) -> AttentionSite:
    """Where the heads of an attention lie that the task names.

    Raises:
        TaskError: The module is not as the task says; the message names the field and the layer.
    """
    layers = {role: _layer(name, module, role, getattr(parts, role)) for role in LAYERS}
    thirds = 3 if parts.packed else 1
    heads = _heads(name, module, parts, layers["query"].out_features // thirds)
    sizes = {role: layers[role].out_features / thirds for role in ("query", "key", "value")}
    if sizes["key"] != sizes["query"]:
        raise TaskError(
            f"`key` of {label(name)} has {int(sizes['key'])} outputs and `query` {int(sizes['query'])}: heads that "
            "share keys are not handled",
            hint="leave it out of `attention`",
        )
    for role, size in sizes.items():
        if size % heads:
            raise TaskError(
                f"`{role}` of {label(name)} has {layers[role].out_features} outputs, which {heads} heads"
                f"{' and three parts' if parts.packed else ''} do not divide",
                hint=f"is `{(*parts.head_attributes, parts.head_width)[0]}` right?",
            )
    width, value_width = int(sizes["query"]) // heads, int(sizes["value"]) // heads
    if layers["output"].in_features != sizes["value"]:
        raise TaskError(
            f"`output` of {label(name)} takes {layers['output'].in_features} features in, and `value` gives "
            f"{int(sizes['value'])}",
            hint="`output` is the layer behind the attention, which takes all heads in",
        )
    for path in parts.widths:
        number = _number(name, module, "widths", path)
        if number not in (heads * width, heads * value_width):
            raise TaskError(
                f"`{path}` of {label(name)} is {number}, and {heads} heads are {heads * width} wide",
                hint="`widths` are attributes that hold the number of heads times their width; leave out others",
            )
    paths = {role: full_name(name, getattr(parts, role)) for role in LAYERS}
    rows = (
        Projection.of_rows(paths[role], layers[role], heads, size, int(sizes["query"]) * index if parts.packed else 0)
        for index, (role, size) in enumerate((("query", width), ("key", width), ("value", value_width)))
    )
    query, key, value_rows = rows
    output = Projection.of_columns(paths["output"], layers["output"], heads, value_width)
    return AttentionSite(name, "declared", heads, (query, key, value_rows, output), parts)


def _heads(name: str, module: nn.Module, parts: AttentionParts, features: int) -> int:
    """The number of heads, as its attributes or the width of a head say."""
    if parts.head_width is not None:
        width = _number(name, module, "head_width", parts.head_width)
        if width < 1 or features % width:
            raise TaskError(
                f"`query` of {label(name)} has {features} outputs, which are not heads of {width}",
                hint=f"is `{parts.head_width}` the width of a head?",
            )
        return features // width
    numbers = {path: _number(name, module, "heads", path) for path in parts.head_attributes}
    heads = next(iter(numbers.values()))
    if len(set(numbers.values())) > 1 or heads < 1:
        listed = ", ".join(f"`{path}` is {number}" for path, number in numbers.items())
        raise TaskError(f"`heads` of {label(name)} do not agree: {listed}", hint="each has to be the number of heads")
    return heads


def declared_modules(model: nn.Module, declared: Mapping[str, AttentionParts]) -> dict[int, AttentionParts]:
    """Identity of a module -> its parts, for modules that the task names and that are not this package's by now."""
    modules: dict[int, AttentionParts] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module).__module__.startswith(_OURS):
            continue
        for pattern, parts in declared.items():
            if fits(pattern, name):
                modules.setdefault(id(module), parts)
    return modules


def _layer(name: str, module: nn.Module, role: str, path: str) -> nn.Linear:
    layer: Any = module
    for done, part in enumerate(path.split(".")):
        if not isinstance(layer, nn.Module) or not hasattr(layer, part):
            raise _missing(name, role, path, layer, part, ".".join(path.split(".")[:done]))
        layer = getattr(layer, part)
    if not isinstance(layer, nn.Linear):
        raise TaskError(
            f"`{path}`, the `{role}` of {label(name)}, is a `{type(layer).__name__}`, not an nn.Linear",
            hint="heads are taken out of nn.Linear layers only",
        )
    return layer


def _number(name: str, module: nn.Module, role: str, path: str) -> int:
    owner, attribute = _owner(name, module, path, role)
    number = getattr(owner, attribute)
    if type(number) is not int:
        raise TaskError(
            f"`{path}` of {label(name)} is {number!r}, a `{type(number).__name__}`, not an int",
            hint=f"`{role}` names attributes that hold whole numbers",
        )
    descriptor = getattr(type(owner), attribute, None)
    if isinstance(descriptor, property) and descriptor.fset is None:
        raise TaskError(
            f"`{path}` of {label(name)} is a property that cannot be set",
            hint="name the attribute that it is computed from; leave it out if it is computed from the layers",
        )
    return number


def _owner(name: str, module: nn.Module, path: str, role: str = "heads") -> tuple[nn.Module, str]:
    """The module that holds an attribute, and the attribute's name."""
    *way, attribute = path.split(".")
    owner: Any = module
    for done, part in enumerate(way):
        if not hasattr(owner, part):
            raise _missing(name, role, path, owner, part, ".".join(way[:done]))
        owner = getattr(owner, part)
        if not isinstance(owner, nn.Module):
            raise TaskError(
                f"`{'.'.join(way[: done + 1])}` of {label(name)} is a `{type(owner).__name__}`, not a module: other "
                f"modules may hold it too, so `{path}` cannot be set for this one alone",
                hint="copy the number into an attribute of the module",
            )
    if not hasattr(owner, attribute):
        raise _missing(name, role, path, owner, attribute, ".".join(way))
    return owner, attribute


def _missing(name: str, role: str, path: str, owner: Any, part: str, way: str) -> TaskError:
    wanted = _layer_names(owner) if role in LAYERS else _numbers(owner)
    near = difflib.get_close_matches(part, wanted, n=1) or wanted
    place = label(full_name(name, way) if way else name)
    return TaskError(
        f"{place}, a `{type(owner).__name__}`, has no `{part}` (`{role}` is `{path}`)",
        hint=f"it has {_some(near)}" if near else "look it up in the module's `__init__`",
    )


def _layer_names(owner: Any) -> list[str]:
    return list(owner._modules) if isinstance(owner, nn.Module) else []


def _numbers(owner: Any) -> list[str]:
    """Names of what a path to a number may go on with."""
    numbers = [key for key, value in vars(owner).items() if type(value) is int and not key.startswith("_")]
    return [*numbers, *_layer_names(owner)]


def _some(names: Iterable[str]) -> str:
    every = [f"`{name}`" for name in names]
    return ", ".join(every[:_SHOWN]) + (f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else "")


def label(name: str) -> str:
    """What messages call a module."""
    return f"`{name}`" if name else "the model"
