"""Removes hidden units of recurrent layers for real: smaller tensors, the outputs that zeroing them would give."""

from __future__ import annotations

import copy
import fractions
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compressor.errors import SurgeryError
from compressor.nn.recurrent import recurrent_modules
from compressor.report import Change, Skip
from compressor.surgery.rebuild import resize_record
from compressor.surgery.resize import check_resizable, resized_copy, select, tensor_of
from compressor.surgery.tracing import Tracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.surgery.atoms import Atoms, Ids

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest |smaller - zeroed| / max(1, |zeroed|) by dtype; sums are taken in another order after the removal."""

LayerKey = tuple[str, int, int]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class UnitSurgery:
    """A model with fewer units, and what was done to it."""

    model: nn.Module
    masks: dict[str, Tensor]
    structure: dict[str, Any]
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...]


def prune(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    examples: Sequence[tuple[Tensor, ...]],
    *,
    names: Sequence[str],
    ratio: float | None = None,
    count: int | None = None,
    round_to: int = 1,
    score: Literal["l1", "l2"] = "l2",
) -> UnitSurgery:
    r"""Remove the units with the lowest weight magnitude from each layer of the named recurrent modules.

    A unit's score is the norm of all weights that it owns: its rows of `weight_ih` and `weight_hh` in every gate, its
    column of `weight_hh`, and its column in every consumer (next layer, Linear), without biases:
    :math:`s_u = (\sum_{w \in W(u)} |w|^p)^{1/p}` with p = 1 or 2. Ties go to the lower index.

    Every layer and direction of a module loses the same number of units (one `nn.GRU` has one hidden size), each its
    own. Units that are tied (a shared initial state, a residual) go together.

    Args:
        model: Left untouched; the result is a copy.
        masks: Masks of parameters by name; they are cut along.
        examples: Inputs of the model at one or more shapes. The first is traced; on all of them the smaller model must
            give what the original gives with these units silenced.
        names: The recurrent modules.
        ratio: Fraction of each layer's units to remove, 0 < ratio < 1; the number is rounded down.
        count: Number of units to remove from each layer, instead of `ratio`.
        round_to: The number of kept units is rounded up to a multiple of this.
        score: `l1` or `l2`.

    Raises:
        SurgeryError: No unit, or no kept unit, would be left; a layer cannot be followed or is not reached; the smaller
            model does not agree. The message says where and why.
    """
    inputs = [tuple(part.cpu() for part in example) for example in examples]
    with _evaluating_on_cpu(model) as working:
        atoms, units = _trace(working, inputs[0], names)
        removed = _choose(working, atoms, units, ratio, count, round_to, score)
        kept = _plan(working, atoms, removed)
        _refuse_unresizable(working, {name for name, _ in kept})
        with _silenced(working, atoms, kept):
            expected = [_forward(working, example, "silenced") for example in inputs]
        smaller = resized_copy(working, kept)
        for example, outputs in zip(inputs, expected, strict=True):
            _check_agreement(_forward(smaller, example, "smaller"), outputs, example)
        result = _result(working, smaller, masks, kept, units)
    result.model.to(next(model.parameters()).device).train(model.training)
    return result


@contextmanager
def _evaluating_on_cpu(model: nn.Module) -> Iterator[nn.Module]:
    """The model itself where it lies on the CPU (a copy would double the memory), as it was again afterwards."""
    if any(tensor.device.type != "cpu" for tensor in [*model.parameters(), *model.buffers()]):
        yield copy.deepcopy(model).cpu().eval()
        return
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


def _trace(model: nn.Module, example: tuple[Tensor, ...], names: Sequence[str]) -> tuple[Atoms, dict[LayerKey, Ids]]:
    tracer = Tracer(model)
    tracer.run(example)
    modules = recurrent_modules(model)
    for name in names:
        if name not in modules:
            raise SurgeryError(f"`{name}` is no nn.RNN, nn.GRU or nn.LSTM", hint="choose others with `targets`")
        if name not in tracer.called:
            raise SurgeryError(
                f"`{name}` is not called in the model's forward pass, so its consumers are not known",
                hint="name it under `ignore`",
            )
    return tracer.atoms, {key: ids for key, ids in tracer.units.items() if key[0] in names}


def _choose(
    model: nn.Module,
    atoms: Atoms,
    units: Mapping[LayerKey, Ids],
    ratio: float | None,
    count: int | None,
    round_to: int,
    score: str,
) -> Ids:
    """The groups to remove: in each layer the lowest scores, tied layers decided together."""
    totals = group_scores(model, atoms, score)
    pinned = atoms.reasons()
    layers = {key: atoms.roots(ids) for key, ids in units.items()}
    removed: dict[int, None] = {}
    for key, groups in layers.items():
        _refuse_pinned(key, groups, pinned)
        if len(np.unique(groups)) != len(groups):
            raise SurgeryError(
                f"units of layer {key[1]} of `{key[0]}` depend on each other, so single ones cannot be removed",
                hint=f"name `{key[0]}` under `ignore`",
            )
        number = _number_to_remove(key, len(groups), ratio, count, round_to)
        tied = [group for group in groups.tolist() if group in removed]
        free = [index for index, group in enumerate(groups.tolist()) if group not in removed]
        order = sorted(free, key=lambda index: float(totals[groups[index]]))
        if len(tied) > number:
            raise SurgeryError(
                f"layer {key[1]} of `{key[0]}` is tied to a larger one and would lose {len(tied)} units instead "
                f"of {number}",
                hint="use `count`",
            )
        removed.update(dict.fromkeys(groups[order[: number - len(tied)]].tolist()))
    for key, groups in layers.items():
        # A later layer may have taken groups that an earlier one shares.
        lost = sum(group in removed for group in groups.tolist())
        if lost != _number_to_remove(key, len(groups), ratio, count, round_to):
            raise SurgeryError(
                f"layers tied to layer {key[1]} of `{key[0]}` ask for different units",
                hint="name one of the tied layers under `ignore`",
            )
    return np.array(sorted(removed), np.int64)


def _refuse_pinned(key: LayerKey, groups: Ids, pinned: Mapping[int, str]) -> None:
    reasons = {pinned[group] for group in groups.tolist() if group in pinned}
    if reasons:
        raise SurgeryError(
            f"units of layer {key[1]} of `{key[0]}` cannot be removed: {'; '.join(sorted(reasons))}",
            hint=f"name `{key[0]}` under `ignore`; the model is untouched",
        )


def _number_to_remove(key: LayerKey, size: int, ratio: float | None, count: int | None, round_to: int) -> int:
    # 0.29 * 100 is 28.999... in binary; the decimal number that was written is what counts.
    number = count if count is not None else math.floor(size * fractions.Fraction(repr(ratio)))
    kept = size - number
    if kept <= 0:
        raise SurgeryError(
            f"this would leave no unit in layer {key[1]} of `{key[0]}`, which has {size}",
            hint="lower `ratio` or `count`",
        )
    kept = min(size, math.ceil(kept / round_to) * round_to)
    if kept == size:
        raise SurgeryError(
            f"no unit would go from layer {key[1]} of `{key[0]}`, which has {size}"
            + (f" (kept units are rounded up to a multiple of {round_to})" if round_to > 1 else ""),
            hint="raise `ratio` or `count`, or lower `round_to`",
        )
    return size - kept


def group_scores(model: nn.Module, atoms: Atoms, score: str) -> Scores:
    """Norm of all weights (of two or more axes) that a group owns, at the index of the group's representative."""
    power = {"l1": 1, "l2": 2}[score]
    totals = np.zeros(atoms.count)
    for (name, axis), ids in atoms.axes.items():
        tensor = tensor_of(model, name).detach()
        if tensor.dim() < 2:
            continue
        others = [other for other in range(tensor.dim()) if other != axis]
        norms = torch.linalg.vector_norm(tensor, power, others).double()
        np.add.at(totals, atoms.roots(ids), norms.numpy() ** power)
    return totals ** (1 / power)


def _plan(model: nn.Module, atoms: Atoms, removed: Ids) -> dict[tuple[str, int], Tensor]:
    """Which positions of which axes stay, for every axis that loses some."""
    kept = {}
    for (name, axis), ids in atoms.axes.items():
        stays = ~np.isin(atoms.roots(ids), removed)
        if not stays.any():
            raise SurgeryError(f"axis {axis} of `{name}` would be empty", hint="lower `ratio` or `count`")
        if not stays.all():
            kept[name, axis] = torch.from_numpy(stays)
    return kept


def _refuse_unresizable(model: nn.Module, names: set[str]) -> None:
    reasons = check_resizable(model, names)
    if reasons:
        name, reason = sorted(reasons.items())[0]
        raise SurgeryError(f"`{name}` would have to shrink, but {reason}", hint="choose other layers with `targets`")


@contextmanager
def _silenced(model: nn.Module, atoms: Atoms, kept: Mapping[tuple[str, int], Tensor]) -> Iterator[None]:
    """The removed units are 0 at every step while this lasts: the rows that make them are 0, their consumers as before.

    With zero rows and biases, an RNN gives tanh(0) = relu(0) = 0; a GRU n = 0, so h = z * h' stays 0; an LSTM g = 0, so
    c = f * c' stays 0 and h = o * tanh(0) = 0. That uses nothing of what the trace found out about consumers.
    """
    saved = []
    try:
        for (name, axis), mask in kept.items():
            if atoms.roles[name, axis] == "out":
                tensor, rows = tensor_of(model, name).detach(), (~mask).nonzero().flatten()
                saved.append((tensor, axis, rows, tensor.index_select(axis, rows)))
                tensor.index_fill_(axis, rows, 0.0)
        yield
    finally:
        # In reverse order: an element may be covered twice, by rows and by columns.
        for tensor, axis, rows, values in reversed(saved):
            tensor.index_copy_(axis, rows, values)


def _forward(model: nn.Module, inputs: tuple[Tensor, ...], what: str) -> list[Tensor]:
    try:
        with torch.no_grad():
            outputs = model(*inputs)
    except Exception as error:
        raise SurgeryError(
            f"the {what} model cannot run: {type(error).__name__}: {str(error).splitlines()[0]} ({_where(error)})",
            hint="a size may be fixed in the model's code: use `-1`, `x.shape` or the module's own `hidden_size` "
            "there; the model is untouched",
        ) from error
    return [part for part in tree_flatten(outputs)[0] if isinstance(part, Tensor)]


def _where(error: Exception) -> str:
    """The innermost line of the user's model that the error passed through."""
    torch_folder = str(torch.__path__[0])
    where, traceback = "in the model", error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(torch_folder) and code.co_filename != __file__:
            where = f"{code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}, in `{code.co_name}`"
        traceback = traceback.tb_next
    return where


def _check_agreement(found: list[Tensor], expected: list[Tensor], example: tuple[Tensor, ...]) -> None:
    shapes = [tuple(part.shape) for part in example]
    if [part.shape for part in found] != [part.shape for part in expected]:
        raise SurgeryError(
            f"the smaller model's outputs have other shapes at inputs of shapes {shapes}",
            hint="the model is untouched",
        )
    for index, (new, old) in enumerate(zip(found, expected, strict=True)):
        if not old.is_floating_point() or not old.numel():
            continue
        error = float(((new - old).abs() / old.abs().clamp(min=1.0)).max())
        if not error <= TOLERANCE[old.dtype]:
            raise SurgeryError(
                f"output {index} of the smaller model differs by {error:.2g} from the original with the same units "
                f"silenced, at inputs of shapes {shapes}: this topology is not handled yet",
                hint="name the layer under `ignore`; the model is untouched",
            )


def _result(
    before: nn.Module,
    after: nn.Module,
    masks: Mapping[str, Tensor],
    kept: Mapping[tuple[str, int], Tensor],
    units: Mapping[LayerKey, Ids],
) -> UnitSurgery:
    axes: dict[str, dict[int, Tensor]] = {}
    for (name, axis), mask in kept.items():
        axes.setdefault(name, {})[axis] = mask
    changes = []
    for name, masked in axes.items():
        old, new = tensor_of(before, name), tensor_of(after, name)
        changes.append(
            Change(
                name=name,
                action="units removed" if 0 in masked else "inputs removed",
                shape_before=tuple(old.shape),
                shape_after=tuple(new.shape),
                parameters_before=old.numel(),
                parameters_after=new.numel(),
                nonzeros_before=int(old.count_nonzero()),
                nonzeros_after=int(new.count_nonzero()),
            )
        )
    cut_masks = {name: select(mask, axes.get(name, {})) for name, mask in masks.items()}
    chosen = {key[0] for key in units}
    skipped = tuple(
        Skip(name=name, reason="not among the targets") for name in recurrent_modules(before) if name not in chosen
    )
    record = resize_record({name: tensor_of(after, name).shape for name in axes})
    return UnitSurgery(after, cut_masks, record, tuple(changes), skipped)
