"""Removes hidden units of recurrent layers for real: smaller tensors, the outputs that zeroing them would give."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from compressor.errors import SurgeryError
from compressor.report import Change, Skip
from compressor.surgery.choice import Amount, Layer, Scores, choose
from compressor.surgery.rebuild import resize_record
from compressor.surgery.resize import check_resizable, resized_copy, select, tensor_of
from compressor.surgery.tracing import Tracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from compressor.surgery.atoms import Atoms, Ids

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest |smaller - zeroed| / max(1, |zeroed|) by dtype; sums are taken in another order after the removal."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


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
    amount: Amount,
    score: Literal["l1", "l2"] = "l2",
    required: Sequence[str] | None = None,
) -> UnitSurgery:
    r"""Remove the units with the lowest weight magnitude from the named modules.

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
        names: Recurrent modules and cells, Linear layers and convolutions.
        amount: How much goes.
        score: `l1` or `l2`.
        required: Those of `names` for which it is an error that nothing can be removed; all by default. The others are
            skipped then, with the reason.

    Raises:
        SurgeryError: No unit, or no kept unit, would be left; a layer cannot be followed or is not reached; the smaller
            model does not agree. The message says where and why.
    """
    inputs = [tuple(part.cpu() for part in example) for example in examples]
    with _evaluating_on_cpu(model) as working:
        tracer, layers = _trace(working, inputs[0], names)
        atoms = tracer.atoms
        scores = group_scores(working, atoms, score)
        choice = choose(layers, scores, atoms.reasons(), amount, frozenset(names if required is None else required))
        kept = _plan(atoms, choice.removed)
        _refuse_unresizable(working, {name for name, _ in kept})
        shifted = bool(np.isin(atoms.roots(tracer.shifted_atoms()), choice.removed).any())
        with _silenced(working, atoms, kept, consumers=shifted):
            expected = [_forward(working, example, "silenced") for example in inputs]
        smaller = resized_copy(working, kept)
        for example, outputs in zip(inputs, expected, strict=True):
            _check_agreement(_forward(smaller, example, "smaller"), outputs, example)
        result = _result(working, smaller, masks, kept, choice.skipped)
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


def _trace(model: nn.Module, example: tuple[Tensor, ...], names: Sequence[str]) -> tuple[Tracer, list[Layer]]:
    """Trace the model; gives the layers of the named modules in the model's order."""
    tracer = Tracer(model)
    tracer.run(example)
    layers: list[Layer] = []
    modules = dict(model.named_modules())
    for name in names:
        module = modules.get(name)
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            found = [
                Layer(name, tracer.atoms.roots(ids), layer, direction)
                for (owner, layer, direction), ids in tracer.units.items()
                if owner == name
            ]
        elif isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            axis = 1 if getattr(module, "transposed", False) else 0
            ids = tracer.atoms.axes.get((f"{name}.weight", axis))
            found = [] if ids is None else [Layer(name, tracer.atoms.roots(ids))]
        else:
            raise SurgeryError(
                f"`{name}` is no recurrent layer, Linear or convolution", hint="choose others with `targets`"
            )
        if not found:
            raise SurgeryError(
                f"`{name}` is not called in the model's forward pass, so its consumers are not known",
                hint="name it under `ignore`",
            )
        layers += found
    return tracer, layers


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


def _plan(atoms: Atoms, removed: Ids) -> dict[tuple[str, int], Tensor]:
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
def _silenced(
    model: nn.Module, atoms: Atoms, kept: Mapping[tuple[str, int], Tensor], *, consumers: bool
) -> Iterator[None]:
    """The removed units are 0 at every step while this lasts: the rows that make them are 0, their consumers as before.

    With zero rows and biases, an RNN gives tanh(0) = relu(0) = 0; a GRU n = 0, so h = z * h' stays 0; an LSTM g = 0, so
    c = f * c' stays 0 and h = o * tanh(0) = 0. That uses nothing of what the trace found out about consumers. Where a
    function between makes something else of 0 (a sigmoid gives 0.5), `consumers` silences them at their consumers too.
    """
    saved = []
    try:
        for (name, axis), mask in kept.items():
            if consumers or atoms.roles[name, axis] == "out":
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
    skipped: tuple[Skip, ...],
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
    record = resize_record({name: tensor_of(after, name).shape for name in axes})
    return UnitSurgery(after, cut_masks, record, tuple(changes), skipped)
