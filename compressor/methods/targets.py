"""Which weights or layers `targets` and `ignore` name, and a clear refusal where they name nothing."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from compressor.errors import MethodError
from compressor.nn.patterns import fits
from compressor.report import Skip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from compressor.nn.attention.parts import AttentionParts

Kind = Literal["i2h", "h2h", "other", "layer", "attention"]

_SHOWN = 12
"""How many names an error lists at most."""


@dataclass(frozen=True)
class Candidate:
    """Something that a pattern may choose: a weight, or a recurrent layer."""

    name: str
    """As in `named_parameters` or `named_modules`: the first name of a shared one."""
    kind: Kind
    paths: tuple[str, ...]
    """All its names and those of the modules that hold it."""


@dataclass(frozen=True)
class Selection:
    """What was chosen, in the model's order, and what was looked at and left alone."""

    names: tuple[str, ...]
    skipped: tuple[Skip, ...]


def matches(pattern: str, candidate: Candidate) -> bool:
    """True where the glob (or, after `re:`, the regular expression) fits a whole name of the candidate."""
    return any(fits(pattern, path) for path in candidate.paths)


def select_weights(
    model: nn.Module, targets: Sequence[str] | None, ignore: Sequence[str], matrices: Literal["both", "i2h", "h2h"]
) -> Selection:
    """The weight matrices to prune: those that `targets` names, or every recurrent layer's.

    Raises:
        MethodError: A pattern matches nothing, or nothing is left.
    """
    candidates = _weights(model)
    recurrent = [item for item in candidates if item.kind != "other"]
    if targets is None and not recurrent:
        raise MethodError(
            "the model has no recurrent layer (nn.RNN, nn.GRU, nn.LSTM or a cell of theirs) with plain weights",
            hint=f"name other weights in `targets`: {_listed(item.name for item in candidates)}",
        )
    _refuse_unmatched(targets or (), candidates, model)
    chosen: list[str] = []
    skipped: list[Skip] = []
    for item in candidates:
        reason = _reason(item, targets, ignore, matrices)
        if reason is None:
            chosen.append(item.name)
        else:
            skipped.append(Skip(name=item.name, reason=reason))
    return _not_empty(chosen, skipped)


def select_layers(model: nn.Module, targets: Sequence[str] | None, ignore: Sequence[str]) -> Selection:
    """The layers whose units, features or channels `targets` names, or every recurrent layer and cell.

    Raises:
        MethodError: A pattern matches nothing, or nothing is left.
    """
    candidates = _layers(model)
    if targets is None and all(item.kind == "other" for item in candidates):
        raise MethodError(
            "the model has no recurrent layer (nn.RNN, nn.GRU, nn.LSTM or a cell of theirs) to take units from",
            hint=f"name Linear layers or convolutions in `targets`: {_listed(item.name for item in candidates)}",
        )
    _refuse_unmatched(targets or (), candidates, model)
    reasons = [(item.name, _reason(item, targets, ignore, "both")) for item in candidates]
    chosen = [name for name, reason in reasons if reason is None]
    return _not_empty(chosen, [Skip(name=name, reason=reason) for name, reason in reasons if reason is not None])


def select_matrices(
    model: nn.Module, candidates: Sequence[Candidate], targets: Sequence[str] | None, ignore: Sequence[str]
) -> Selection:
    """Of the matrices that may be factored those that `targets` names, or those of attention.

    Raises:
        MethodError: A pattern matches nothing, or nothing is left.
    """
    if targets is None and all(item.kind == "other" for item in candidates):
        raise MethodError(
            "the model has no multi-head attention whose matrices could be cut",
            hint="name Linear or recurrent matrices in `targets`, or attention of your own in the task's `attention`: "
            f"{_listed(item.name for item in candidates)}",
        )
    _refuse_unmatched(targets or (), candidates, model, why="cannot be factored")
    reasons = [(item.name, _reason(item, targets, ignore, "both")) for item in candidates]
    left = "not a part of attention and not named in `targets`"
    skipped = [
        Skip(name=name, reason=reason if targets is not None or reason == "named in `ignore`" else left)
        for name, reason in reasons
        if reason is not None
    ]
    return _not_empty([name for name, reason in reasons if reason is None], skipped)


def select_attention(
    model: nn.Module, declared: Mapping[str, AttentionParts], targets: Sequence[str] | None, ignore: Sequence[str]
) -> Selection:
    """The attentions that `targets` names, or every one.

    Args:
        model: The model.
        declared: What the task says of attention that is not PyTorch's.
        targets: Globs (or `re:`) of their names or of modules that hold them.
        ignore: The same of those to leave alone.

    Raises:
        MethodError: The model has none, a pattern matches nothing, or nothing is left.
    """
    from compressor.surgery.attention.sites import attention_sites

    sites = attention_sites(model, declared)
    paths: dict[int, tuple[str, ...]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths[id(module)] = (*paths.get(id(module), ()), *_paths(path))
    candidates = [Candidate(site.name, "layer", paths[id(model.get_submodule(site.name))]) for site in sites.found]
    if not candidates:
        changed = f" ({'; '.join(f'{skip.name}: {skip.reason}' for skip in sites.skipped)})" if sites.skipped else ""
        raise MethodError(
            f"the model has no multi-head attention{changed}",
            hint="nn.MultiheadAttention is found by itself; name attention of your own in the task's `attention`",
        )
    _refuse_unmatched(targets or (), candidates, model, why="is no attention; name it in the task's `attention`")
    reasons = [(item.name, _reason(item, targets, ignore, "both")) for item in candidates]
    chosen = [name for name, reason in reasons if reason is None]
    skipped = [Skip(name=name, reason=reason) for name, reason in reasons if reason is not None]
    return _not_empty(chosen, [*sites.skipped, *skipped])


def layer_ratios(model: nn.Module, names: Sequence[str], ratios: Mapping[str, float]) -> dict[str, float]:
    """The ratio of each chosen layer that a pattern of `ratios` fits; a layer's own name goes before patterns.

    Args:
        model: The model.
        names: The chosen layers, see `select_layers`.
        ratios: Glob (or `re:`) -> ratio.

    Raises:
        MethodError: A pattern fits none of the chosen layers, or two of them give one layer different ratios.
    """
    candidates = [item for item in _layers(model) if item.name in names]
    _refuse_unmatched(tuple(ratios), candidates, model, option="ratios", why="`targets` does not choose")
    found: dict[str, float] = {}
    for item in candidates:
        fitting = {pattern: ratio for pattern, ratio in ratios.items() if matches(pattern, item)}
        if item.name in fitting:
            fitting = {item.name: fitting[item.name]}
        if not fitting:
            continue
        if len(set(fitting.values())) > 1:
            raise MethodError(
                f"`ratios` gives `{item.name}` several ratios: {', '.join(f'{p}: {r:g}' for p, r in fitting.items())}",
                hint=f"name `{item.name}` itself, which goes before patterns",
            )
        found[item.name] = next(iter(fitting.values()))
    return found


def _reason(item: Candidate, targets: Sequence[str] | None, ignore: Sequence[str], matrices: str) -> str | None:
    """Why a candidate is left alone; None where it is chosen."""
    if targets is None and item.kind == "other":
        return "not in a recurrent layer and not named in `targets`"
    if targets is not None and not any(matches(pattern, item) for pattern in targets):
        return "not named in `targets`"
    if any(matches(pattern, item) for pattern in ignore):
        return "named in `ignore`"
    if item.kind in ("i2h", "h2h") and matrices not in ("both", item.kind):
        return f"`matrices: {matrices}` leaves {item.kind} weights alone"
    return None


def _not_empty(chosen: Sequence[str], skipped: Sequence[Skip]) -> Selection:
    if not chosen:
        looked_at = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped[:_SHOWN])
        raise MethodError(f"nothing is left to prune ({looked_at})", hint="change `targets`, `ignore` or `matrices`")
    return Selection(tuple(chosen), tuple(skipped))


def _refuse_unmatched(
    patterns: Sequence[str],
    candidates: Sequence[Candidate],
    model: nn.Module,
    *,
    option: str = "targets",
    why: str = "cannot be pruned",
) -> None:
    """Every pattern has to match: one that does not is most likely a slip, and would prune less than was meant."""
    for pattern in patterns:
        if any(matches(pattern, item) for item in candidates):
            continue
        names = dict.fromkeys(path for item in candidates for path in item.paths)
        near = difflib.get_close_matches(pattern, names, n=1, cutoff=0.5)
        wish = f"did you mean `{near[0]}`? " if near else ""
        raise MethodError(
            f"`{option}`: {_what_it_matches(pattern, model, why)}",
            hint=f"{wish}candidates: {_listed(item.name for item in candidates)}",
        )


def _what_it_matches(pattern: str, model: nn.Module, why: str) -> str:
    names = [name for name, _ in [*model.named_parameters(), *model.named_modules()] if name]
    found = [name for name in names if matches(pattern, Candidate(name, "other", (name,)))]
    if found:
        return f"`{pattern}` matches only {_listed(found)}, which {why}"
    return f"`{pattern}` matches nothing in the model"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(f"`{name}`" for name in every[:_SHOWN]) + more if every else "none"


def _weights(model: nn.Module) -> list[Candidate]:
    """Every weight that magnitude can prune, a shared one once, under all its names."""
    found: dict[int, Candidate] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            kind = _kind(module, local) if parameter.is_floating_point() else None
            if kind is None:
                continue
            path = f"{prefix}.{local}" if prefix else local
            known = found.get(id(parameter))
            found[id(parameter)] = (
                Candidate(path, kind, _paths(path))
                if known is None
                else Candidate(known.name, known.kind, (*known.paths, *_paths(path)))
            )
    # the canonical name of a parameter may lie in a module of another kind that shares it
    return [
        Candidate(name, found[id(parameter)].kind, (*_paths(name), *found[id(parameter)].paths))
        for name, parameter in model.named_parameters()
        if id(parameter) in found
    ]


def _layers(model: nn.Module) -> list[Candidate]:
    from torch import nn

    from compressor.nn.recurrent.layers import RECURRENT

    found: dict[int, Candidate] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        recurrent = isinstance(module, RECURRENT)
        if recurrent or isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            known = found.get(id(module))
            name, paths = (path, ()) if known is None else (known.name, known.paths)
            found[id(module)] = Candidate(name, "layer" if recurrent else "other", (*paths, *_paths(path)))
    return list(found.values())


def _paths(path: str) -> tuple[str, ...]:
    """A name and the modules that hold it: `a.b.c`, `a.b`, `a`."""
    parts = path.split(".")
    return tuple(".".join(parts[:end]) for end in range(len(parts), 0, -1))


def _kind(module: nn.Module, local: str) -> Kind | None:
    """Which weight of which module this is; None for what magnitude never prunes (biases, norms, unknown layers)."""
    from torch import nn

    from compressor.nn.recurrent.layers import RECURRENT

    if isinstance(module, RECURRENT):
        if local.startswith("weight_ih"):
            return "i2h"
        return "h2h" if local.startswith(("weight_hh", "weight_hr")) else None
    if isinstance(module, nn.MultiheadAttention):
        return "other" if local.endswith("proj_weight") else None
    plain = (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return "other" if isinstance(module, plain) and local == "weight" else None
