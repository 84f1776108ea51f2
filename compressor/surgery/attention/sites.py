"""One view of every multi-head attention in a model: PyTorch's, this package's, and those that the task names.

A **site** says where each head's share of the four projections lies, whatever the module: `nn.MultiheadAttention` with
one packed weight or three, `CompactMultiheadAttention`, or a module that someone wrote (see `AttentionParts`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import TaskError
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.parts import LAYERS, AttentionParts
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.patterns import fits
from compressor.nn.structure import full_name
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Kind = Literal["multihead", "compact", "declared"]
_OURS = __name__.partition(".")[0] + "."
_SHOWN = 8


@dataclass(frozen=True)
class Projection:
    """The share of all heads in one of the four maps."""

    weight: str
    """Name of the parameter (rows, columns)."""
    bias: str | None
    """Name of the parameter that is added, None without."""
    axis: Literal[0, 1]
    """Axis of the weight along which the heads lie: rows for queries, keys and values, columns for the output."""
    start: int
    """First position along that axis."""
    bias_start: int
    """First position of the bias; that of the output belongs to no head."""
    heads: int
    """h."""
    width: int
    """Positions of one head."""

    @property
    def stop(self) -> int:
        """Behind the last position."""
        return self.start + self.heads * self.width

    def by_head(self, model: nn.Module) -> Tensor:
        """The weight, head by head, detached: (h, d, E) for queries, keys and values, (h, E_o, d_v) for the output."""
        part = model.get_parameter(self.weight).detach().narrow(self.axis, self.start, self.heads * self.width)
        if self.axis == 0:
            return part.view(self.heads, self.width, -1)
        return part.view(len(part), self.heads, self.width).movedim(1, 0)

    def bias_by_head(self, model: nn.Module) -> Tensor | None:
        """The bias, detached: (h, d) for queries, keys and values, (E_o,) for the output; None without one."""
        if self.bias is None:
            return None
        bias = model.get_parameter(self.bias).detach()
        if self.axis == 1:
            return bias
        return bias.narrow(0, self.bias_start, self.heads * self.width).view(self.heads, self.width)

    def axes(self) -> Iterator[tuple[str, int, int]]:
        """(parameter name, axis, first position) of everything along which this projection's heads lie."""
        yield self.weight, self.axis, self.start
        if self.bias is not None and self.axis == 0:
            yield self.bias, 0, self.bias_start


@dataclass(frozen=True)
class AttentionSite:
    """One attention module and where its heads are."""

    name: str
    """Of the module."""
    kind: Kind
    """PyTorch's `multihead`, this package's `compact`, or `declared` by the task."""
    heads: int
    """h."""
    projections: tuple[Projection, Projection, Projection, Projection]
    """Queries, keys, values, output."""
    parts: AttentionParts | None = None
    """What the task says of it; only of kind `declared`."""
    reason: str | None = None
    """Why its weights cannot be changed; None where they can."""

    @property
    def query(self) -> Projection:
        """Of E_q inputs."""
        return self.projections[0]

    @property
    def key(self) -> Projection:
        """Of E_k inputs."""
        return self.projections[1]

    @property
    def value(self) -> Projection:
        """Of E_v inputs."""
        return self.projections[2]

    @property
    def output(self) -> Projection:
        """To E_o outputs."""
        return self.projections[3]

    @property
    def head_width(self) -> int:
        """d, features of a query or key in one head."""
        return self.query.width

    @property
    def value_head_width(self) -> int:
        """d_v, features of a value in one head."""
        return self.value.width

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of all its weights and biases, each once."""
        names = [name for part in self.projections for name in (part.weight, part.bias) if name is not None]
        return tuple(dict.fromkeys(names))

    def kept(self, model: nn.Module, heads: Tensor) -> dict[tuple[str, int], Tensor]:
        """(parameter name, axis) -> which positions stay (boolean) where `heads` (h,), True = stays, do."""
        masks: dict[tuple[str, int], Tensor] = {}
        for part in self.projections:
            positions = heads.repeat_interleave(part.width)
            for name, axis, start in part.axes():
                if (name, axis) not in masks:
                    masks[name, axis] = torch.ones(model.get_parameter(name).size(axis), dtype=torch.bool)
                masks[name, axis][start : start + len(positions)] = positions
        return masks


@dataclass(frozen=True)
class Sites:
    """What was found."""

    found: tuple[AttentionSite, ...]
    """In the model's order; also those that cannot be changed, with the reason."""
    skipped: tuple[Skip, ...]
    """Modules that the task names and that are not as it says any more, since an earlier step changed them."""


def attention_sites(model: nn.Module, declared: Mapping[str, AttentionParts] | None = None) -> Sites:
    """Every multi-head attention of the model.

    Args:
        model: The model, as it is now.
        declared: What the task says of attention that its author wrote: glob of module names (or `re:` and a regular
            expression) -> its parts. The first pattern that fits a module counts.
    """
    found: list[AttentionSite] = []
    skipped: list[Skip] = []
    parts_of = _declared_modules(model, declared or {})
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            found.append(_of_torch(name, module))
        elif isinstance(module, CompactMultiheadAttention):
            foreign = [
                f"its `{path}` is a `{type(part).__name__}`, not an nn.Linear"
                for path, part in module.named_children()
                if not isinstance(part, (nn.Linear, LowRankLinear))
            ]
            if foreign:
                skipped.append(Skip(name=name, reason=foreign[0]))
            else:
                found.append(_of_ours(name, module))
        elif id(module) in parts_of:
            try:
                found.append(_of_task(name, module, parts_of[id(module)]))
            except TaskError as error:
                skipped.append(Skip(name=name, reason=error.message))
    return Sites(tuple(_with_reasons(model, found)), tuple(skipped))


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
    parts_of = _declared_modules(model, declared)
    for name, module in model.named_modules():
        if id(module) in parts_of:
            _of_task(name, module, parts_of[id(module)])


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


def _of_torch(name: str, module: nn.MultiheadAttention) -> AttentionSite:
    heads, width, size = module.num_heads, module.head_dim, module.embed_dim
    if module._qkv_same_embed_dim:
        weights = [(full_name(name, "in_proj_weight"), index * size) for index in range(3)]
    else:
        weights = [(full_name(name, f"{letter}_proj_weight"), 0) for letter in "qkv"]
    bias = None if module.in_proj_bias is None else full_name(name, "in_proj_bias")
    query, key, value = (
        Projection(weight, bias, 0, start, i * size, heads, width) for i, (weight, start) in enumerate(weights)
    )
    output_bias = None if module.out_proj.bias is None else full_name(name, "out_proj.bias")
    output = Projection(full_name(name, "out_proj.weight"), output_bias, 1, 0, 0, heads, width)
    reason = None
    if type(module).forward is not nn.MultiheadAttention.forward:
        reason = f"it is a `{type(module).__name__}` with a `forward` of its own"
    for option, present in (("add_bias_kv", module.bias_k is not None), ("add_zero_attn", module.add_zero_attn)):
        if present:
            reason = f"it has {option}=True"
    return AttentionSite(name, "multihead", heads, (query, key, value, output), reason=reason)


def _of_ours(name: str, module: CompactMultiheadAttention) -> AttentionSite:
    layers = {local: full_name(name, f"{local}_proj") for local in ("q", "k", "v", "out")}
    query, key, value = (
        _rows(layers[local], module.get_submodule(f"{local}_proj"), module.num_heads, width)
        for local, width in (("q", module.head_dim), ("k", module.head_dim), ("v", module.value_head_dim))
    )
    output = _columns(layers["out"], module.out_proj, module.num_heads, module.value_head_dim)
    factored = [path for path in layers.values() if not isinstance(_submodule_of(module, path), nn.Linear)]
    reason = f"`{factored[0]}` is in low rank already" if factored else None
    return AttentionSite(name, "compact", module.num_heads, (query, key, value, output), reason=reason)


def _submodule_of(module: nn.Module, path: str) -> nn.Module:
    """The layer of an attention, by its full name."""
    return module.get_submodule(path.rpartition(".")[2])


def _of_task(name: str, module: nn.Module, parts: AttentionParts) -> AttentionSite:
    """Raises `TaskError` where the module is not as the task says."""
    layers = {role: _layer(name, module, role, getattr(parts, role)) for role in LAYERS}
    numbers = {path: _number(name, module, "heads", path) for path in parts.head_attributes}
    heads = next(iter(numbers.values()))
    if len(set(numbers.values())) > 1 or heads < 1:
        listed = ", ".join(f"`{path}` is {number}" for path, number in numbers.items())
        raise TaskError(f"`heads` of {_label(name)} do not agree: {listed}", hint="each has to be the number of heads")
    thirds = 3 if parts.packed else 1
    sizes = {role: layers[role].out_features / thirds for role in ("query", "key", "value")}
    for role, size in sizes.items():
        if size % heads:
            raise TaskError(
                f"`{role}` of {_label(name)} has {layers[role].out_features} outputs, which {heads} heads"
                f"{' and three parts' if parts.packed else ''} do not divide",
                hint=f"is `{parts.head_attributes[0]}` the number of heads?",
            )
    width, value_width = int(sizes["query"]) // heads, int(sizes["value"]) // heads
    if sizes["key"] != sizes["query"]:
        raise TaskError(
            f"`key` of {_label(name)} has {int(sizes['key'])} outputs and `query` {int(sizes['query'])}: heads that "
            "share keys are not handled",
            hint="leave it out of `attention`",
        )
    if layers["output"].in_features != sizes["value"]:
        raise TaskError(
            f"`output` of {_label(name)} takes {layers['output'].in_features} features in, and `value` gives "
            f"{int(sizes['value'])}",
            hint="`output` is the layer behind the attention, which takes all heads in",
        )
    for path in parts.widths:
        number = _number(name, module, "widths", path)
        if number not in (heads * width, heads * value_width):
            raise TaskError(
                f"`{path}` of {_label(name)} is {number}, and {heads} heads are {heads * width} wide",
                hint="`widths` are attributes that hold the number of heads times their width; leave out others",
            )
    paths = {role: full_name(name, getattr(parts, role)) for role in LAYERS}
    rows = (
        _rows(paths[role], layers[role], heads, size, int(sizes["query"]) * index if parts.packed else 0)
        for index, (role, size) in enumerate((("query", width), ("key", width), ("value", value_width)))
    )
    query, key, value_rows = rows
    output = _columns(paths["output"], layers["output"], heads, value_width)
    return AttentionSite(name, "declared", heads, (query, key, value_rows, output), parts)


def _rows(path: str, layer: Any, heads: int, width: int, start: int = 0) -> Projection:
    bias = None if layer.bias is None else f"{path}.bias"
    return Projection(f"{path}.weight", bias, 0, start, start, heads, width)


def _columns(path: str, layer: nn.Linear, heads: int, width: int) -> Projection:
    return Projection(f"{path}.weight", None if layer.bias is None else f"{path}.bias", 1, 0, 0, heads, width)


def _with_reasons(model: nn.Module, sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """The sites; those whose weights belong to something else too cannot be changed."""
    owners: dict[int, set[str]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), set()).add(_label(name))
    users: dict[int, set[str]] = {}
    for site in sites:
        for module in {id(m): m for m in (_module_of(model, name) for name in site.parameters)}.values():
            users.setdefault(id(module), set()).add(_label(site.name))
    return [_with_reason(model, site, owners, users) for site in sites]


def _with_reason(
    model: nn.Module, site: AttentionSite, owners: Mapping[int, set[str]], users: Mapping[int, set[str]]
) -> AttentionSite:
    if site.reason is not None:
        return site
    for name in site.parameters:
        module = _module_of(model, name)
        parameter = module._parameters.get(name.rpartition(".")[2])
        if parameter is None:
            return replace(site, reason=f"its weight `{name}` is computed from other parameters")
        sharing = owners[id(parameter)] if len(owners[id(parameter)]) > 1 else users[id(module)] - {_label(site.name)}
        if sharing:
            reason = f"its weight `{name}` belongs to {', '.join(sorted(sharing))} as well"
            return replace(site, reason=reason)
    return site


def _module_of(model: nn.Module, parameter: str) -> nn.Module:
    return model.get_submodule(parameter.rpartition(".")[0])


def _declared_modules(model: nn.Module, declared: Mapping[str, AttentionParts]) -> dict[int, AttentionParts]:
    """Identity of a module -> its parts, for modules that the task names and that are not this package's by now."""
    found: dict[int, AttentionParts] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module).__module__.startswith(_OURS):
            continue
        for pattern, parts in declared.items():
            if fits(pattern, name):
                found.setdefault(id(module), parts)
    return found


def _layer(name: str, module: nn.Module, role: str, path: str) -> nn.Linear:
    found: Any = module
    for done, part in enumerate(path.split(".")):
        if not isinstance(found, nn.Module) or not hasattr(found, part):
            raise _missing(name, role, path, found, part, ".".join(path.split(".")[:done]))
        found = getattr(found, part)
    if not isinstance(found, nn.Linear):
        raise TaskError(
            f"`{path}`, the `{role}` of {_label(name)}, is a `{type(found).__name__}`, not an nn.Linear",
            hint="heads are taken out of nn.Linear layers only",
        )
    return found


def _number(name: str, module: nn.Module, role: str, path: str) -> int:
    owner, attribute = _owner(name, module, path, role)
    number = getattr(owner, attribute)
    if type(number) is not int:
        raise TaskError(
            f"`{path}` of {_label(name)} is {number!r}, a `{type(number).__name__}`, not an int",
            hint=f"`{role}` names attributes that hold whole numbers",
        )
    found = getattr(type(owner), attribute, None)
    if isinstance(found, property) and found.fset is None:
        raise TaskError(
            f"`{path}` of {_label(name)} is a property that cannot be set",
            hint="name the attribute that it is computed from; leave it out where it is computed from the layers",
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
                f"`{'.'.join(way[: done + 1])}` of {_label(name)} is a `{type(owner).__name__}`, not a module: other "
                f"modules may hold it too, so `{path}` cannot be set for this one alone",
                hint="copy the number into an attribute of the module",
            )
    if not hasattr(owner, attribute):
        raise _missing(name, role, path, owner, attribute, ".".join(way))
    return owner, attribute


def _missing(name: str, role: str, path: str, owner: Any, part: str, way: str) -> TaskError:
    wanted = _layer_names(owner) if role in LAYERS else _numbers(owner)
    near = difflib.get_close_matches(part, wanted, n=1) or wanted
    place = _label(full_name(name, way) if way else name)
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


def _label(name: str) -> str:
    return f"`{name}`" if name else "the model"
