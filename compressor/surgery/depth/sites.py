"""Finds the stacks whose layers a chain may choose from, by watching them on an example."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from compressor.nn.attention.plain import plain_attention
from compressor.nn.recurrent.layers import cell_of, has_own_forward, is_layer
from compressor.surgery.depth.chains import Site, arrange, light_copy, recurrent_site
from compressor.surgery.depth.stacks import CONTAINERS, joined
from compressor.surgery.refit.calibration import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LEAST = 2


@dataclass(frozen=True)
class Found:
    """What chains may choose from, and why other stacks are none."""

    sites: tuple[Site, ...]
    refused: dict[str, str]
    """Name of a stack -> reason."""


@dataclass
class _Call:
    """One call of a layer."""

    number: int
    """Among all calls that are watched."""
    entering: Tensor | None
    others: list[Any]
    """Every other argument."""
    leaving: Tensor | None = None


@dataclass
class _Watch:
    calls: dict[str, list[_Call]] = field(default_factory=dict)
    count: int = 0


def find_sites(model: nn.Module, example: tuple[Tensor, ...]) -> Found:
    """Watch every list of layers while a copy of the model runs once on an example.

    Layers of a list may stand for each other if each is called once, in order, what enters and leaves them has one
    shape, each reads what the one before gave (or that added to what it read), and all other arguments are the same.
    """
    scratch = light_copy(model).eval()
    lists = {name: module for name, module in scratch.named_modules() if _is_list(module)}
    for name, module in lists.items():
        if len(set(map(id, module._modules.values()))) < len(module._modules):  # one module in several places
            arrange(scratch, Site(name, 0, len(module._modules)), tuple(range(len(module._modules))))
    watch = _run(scratch, [joined(name, local) for name, module in lists.items() for local in module._modules], example)
    sites: list[Site] = []
    refused: dict[str, str] = {}
    for name, module in scratch.named_modules():
        if name in lists:
            found: Site | str = _of_list(name, module, watch)
        elif is_layer(module) and module.num_layers > 1:
            found = _of_recurrent(name, module)
        else:
            continue
        if isinstance(found, Site):
            sites.append(found)
        else:
            refused[name] = found
    outer = [site for site in sites if not any(_inside(site, other, lists) for other in sites)]
    return Found(tuple(outer), refused)


def _is_list(module: nn.Module) -> bool:
    weighted = [part for part in module._modules.values() if part is not None and any(True for _ in part.parameters())]
    return isinstance(module, CONTAINERS) and len(weighted) >= _LEAST


def _inside(site: Site, other: Site, lists: dict[str, nn.Module]) -> bool:
    """Whether a stack lies inside a layer that another one may leave out."""
    if other.name not in lists or site.name == other.name:
        return False
    chosen = list(lists[other.name]._modules)[other.first : other.first + other.count]
    return any(f"{site.name}.".startswith(f"{joined(other.name, local)}.") for local in chosen)


def _of_recurrent(name: str, module: nn.RNNBase) -> Site | str:
    if not name:
        return "the model itself cannot be replaced inside itself"
    if not cell_of(module).is_native or has_own_forward(module):
        return f"`{type(module).__name__}` is not one of PyTorch's own recurrent modules"
    return recurrent_site(name, module)


def _run(model: nn.Module, names: Sequence[str], example: tuple[Tensor, ...]) -> _Watch:
    """The calls of the named modules."""
    watch = _Watch()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    with ExitStack() as hooks, evaluating(model), plain_attention():
        for name in names:
            module = model.get_submodule(name)
            hooks.callback(module.register_forward_pre_hook(_entering(watch, name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(_leaving(watch, name)).remove)
        model(*(part.to(device) for part in example))
    return watch


def _entering(watch: _Watch, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = tree_map_only(Tensor, torch.clone, tree_leaves((args, kwargs)))
        place = next((place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)), None)
        entering = None if place is None else leaves.pop(place)
        watch.calls.setdefault(name, []).append(_Call(watch.count, entering, leaves))
        watch.count += 1

    return hook


def _leaving(watch: _Watch, name: str) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: Any, result: Any) -> None:
        tensor = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
        watch.calls[name][-1].leaving = None if tensor is None else tensor.clone()

    return hook


def _of_list(name: str, module: nn.Module, watch: _Watch) -> Site | str:
    """The longest run of layers that may stand for each other, or why there is none."""
    places = list(module._modules)
    reason = ""
    runs: list[list[int]] = [[]]
    for place, local in enumerate(places):
        problem = _unfit(joined(name, local), module._modules[local], watch)
        if problem is None and runs[-1]:
            before = joined(name, places[place - 1])
            problem = _unfit_behind(before, joined(name, local), watch)
            if problem is not None:
                runs.append([])
                reason = reason or problem
                problem = None
        if problem is None:
            runs[-1].append(place)
        else:
            reason = reason or problem
            runs.append([])
    longest = max(runs, key=len)
    if len(longest) < _LEAST:
        return reason or "it has no two layers of one shape, one behind the other"
    return Site(name, longest[0], len(longest))


def _unfit(name: str, module: nn.Module | None, watch: _Watch) -> str | None:
    """Why a module cannot be left out or repeated; None if it can."""
    if module is None or not any(True for _ in module.parameters()):
        return f"`{name}` has no weights"
    calls = watch.calls.get(name, [])
    if len(calls) != 1:
        return f"`{name}` is called {len(calls)} times"
    entering, leaving = calls[0].entering, calls[0].leaving
    if entering is None or leaving is None or _form(entering) != _form(leaving):
        return f"what leaves `{name}` has not the shape of what enters it"
    return None


def _unfit_behind(before: str, name: str, watch: _Watch) -> str | None:
    """Why a layer may not change places with the one before it."""
    [first], [second] = watch.calls[before], watch.calls[name]
    assert first.entering is not None
    assert first.leaving is not None
    assert second.entering is not None
    if second.number < first.number:
        return f"`{name}` runs before `{before}`"
    if _form(first.entering) != _form(second.entering):
        return f"`{before}` and `{name}` do not read tensors of one shape"
    passed = (first.leaving, first.entering + first.leaving)  # as it is, or around a residual
    if not any(torch.allclose(second.entering, tensor, rtol=1e-6, atol=1e-6, equal_nan=True) for tensor in passed):
        return f"something else computes between `{before}` and `{name}`"
    if not _same(first.others, second.others):
        return f"`{before}` and `{name}` are given different further arguments"
    return None


def _same(first: Sequence[Any], second: Sequence[Any]) -> bool:
    return len(first) == len(second) and all(_equal(one, other) for one, other in zip(first, second, strict=True))


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    return one is other or (type(one) is type(other) and isinstance(one, (int, float, str)) and one == other)


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype
