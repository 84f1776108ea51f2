"""Which weights, layers or matrices of a model `targets` and `ignore` name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from compressor.errors import MethodError
from compressor.methods.patterns import Candidate, Selection, listed, matches, refuse_unmatched, select
from compressor.nn.names import with_holders

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from torch import nn

    from compressor.methods.patterns import Kind
    from compressor.nn.attention.parts import AttentionParts
    from compressor.surgery.units.own_cells import OwnCell


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
            hint=f"name other weights in `targets`: {listed(item.name for item in candidates)}",
        )
    refuse_unmatched(targets or (), candidates, model)
    return select(candidates, targets, ignore, matrices=matrices)


def select_layers(
    model: nn.Module,
    targets: Sequence[str] | None,
    ignore: Sequence[str],
    own_cells: Mapping[str, OwnCell] | None = None,
) -> Selection:
    """The layers whose units, features or channels `targets` names, or every recurrent layer and cell.

    Args:
        model: The model.
        targets: Globs (or `re:`) of their names or of modules that hold them.
        ignore: The same of those to leave alone.
        own_cells: The recurrent cells that the model's own code computes, by the names of their modules. The layers
            that are their gates are chosen only by their own names.

    Raises:
        MethodError: A pattern matches nothing, or nothing is left.
    """
    own_cells = own_cells or {}
    gates = {part for cell in own_cells.values() for part in cell.parts} - set(targets or ())
    candidates = [item for item in _layers(model, own_cells) if item.name not in gates]
    if targets is None and all(item.kind == "other" for item in candidates):
        raise MethodError(
            "the model has no recurrent layer (nn.RNN, nn.GRU, nn.LSTM, a cell of theirs, or one of its own code that "
            "carries a state from step to step) to take units from",
            hint=f"name Linear layers or convolutions in `targets`: {listed(item.name for item in candidates)}",
        )
    refuse_unmatched(targets or (), candidates, model)
    return select(candidates, targets, ignore)


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
            f"{listed(item.name for item in candidates)}",
        )
    refuse_unmatched(targets or (), candidates, model, why="cannot be factored")
    return select(candidates, targets, ignore, not_by_default="not a part of attention and not named in `targets`")


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
        MethodError: The model has none, a pattern matches nothing, nothing is left, or a weight is not finite.
    """
    from compressor.surgery.attention.sites import attention_sites

    sites = attention_sites(model, declared)
    paths: dict[int, tuple[str, ...]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths[id(module)] = (*paths.get(id(module), ()), *with_holders(path))
    candidates = [Candidate(site.name, "layer", paths[id(model.get_submodule(site.name))]) for site in sites.attentions]
    if not candidates:
        changed = f" ({'; '.join(f'{skip.name}: {skip.reason}' for skip in sites.skipped)})" if sites.skipped else ""
        raise MethodError(
            f"the model has no multi-head attention{changed}",
            hint="nn.MultiheadAttention is found by itself; name attention of your own in the task's `attention`",
        )
    refuse_unmatched(targets or (), candidates, model, why="is not an attention; name it in the task's `attention`")
    selection = select(candidates, targets, ignore)
    able = [site for site in sites.attentions if site.name in selection.names and site.reason is None]
    refuse_non_finite(model, [name for site in able for name in site.parameters])
    return Selection(selection.names, (*sites.skipped, *selection.skipped))


def refuse_non_finite(model: nn.Module, names: Sequence[str]) -> None:
    """Raise `MethodError` if a parameter holds NaN or infinity: its magnitudes have no order."""
    for name in names:
        parameter = model.get_parameter(name)
        wrong = parameter.numel() - int(parameter.isfinite().sum())
        if wrong:
            raise MethodError(
                f"`{name}` holds {wrong} values that are NaN or infinite", hint="check the checkpoint, or train again"
            )


def layer_ratios(model: nn.Module, names: Sequence[str], ratios: Mapping[str, float]) -> dict[str, float]:
    """The ratio of each chosen layer that a pattern of `ratios` fits; a layer's own name goes before patterns.

    Args:
        model: The model.
        names: The chosen layers, see `select_layers`.
        ratios: Glob (or `re:`) -> ratio.

    Raises:
        MethodError: A pattern fits none of the chosen layers, or two of them give one layer different ratios.
    """
    candidates = [item for item in _layers(model, names) if item.name in names]
    refuse_unmatched(tuple(ratios), candidates, model, option="ratios", why="`targets` does not choose")
    chosen: dict[str, float] = {}
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
        chosen[item.name] = next(iter(fitting.values()))
    return chosen


def _weights(model: nn.Module) -> list[Candidate]:
    """Every weight that magnitude can prune, a shared one once, under all its names."""
    candidates: dict[int, Candidate] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            kind = _kind(module, local) if parameter.is_floating_point() else None
            if kind is None:
                continue
            path = f"{prefix}.{local}" if prefix else local
            known = candidates.get(id(parameter))
            candidates[id(parameter)] = (
                Candidate(path, kind, with_holders(path))
                if known is None
                else Candidate(known.name, known.kind, (*known.paths, *with_holders(path)))
            )
    # the canonical name of a parameter may lie in a module of another kind that shares it
    return [
        Candidate(name, candidates[id(parameter)].kind, (*with_holders(name), *candidates[id(parameter)].paths))
        for name, parameter in model.named_parameters()
        if id(parameter) in candidates
    ]


def _layers(model: nn.Module, own_cells: Container[str]) -> list[Candidate]:
    from torch import nn

    from compressor.nn.recurrent.layers import RECURRENT
    from compressor.surgery.units.planning import CONVOLUTIONS

    candidates: dict[int, Candidate] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        recurrent = isinstance(module, RECURRENT) or path in own_cells
        if recurrent or isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            known = candidates.get(id(module))
            name, paths = (path, ()) if known is None else (known.name, known.paths)
            candidates[id(module)] = Candidate(name, "layer" if recurrent else "other", (*paths, *with_holders(path)))
    return list(candidates.values())


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
