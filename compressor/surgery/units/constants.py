"""What a function between a unit and its consumers makes of a unit that is 0: a constant, which a bias takes up.

A sigmoid gives 0.5 for a unit that is silent, `1 - h` gives 1. The consumers of a removed unit no longer read that
constant c; their weights W times c go into their bias, and the outputs stay those that silencing the unit gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.names import full_name
from compressor.nn.recurrent.layers import RECURRENT, is_layer, is_step_module, parts
from compressor.surgery.refit.calibration import CONVOLUTIONS, calls, consumed, evaluating
from compressor.surgery.units.resize import tensor_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.surgery.units.planning import Plan

_SAME = 1e-6
"""Largest spread of a constant, relative to it; more is no constant."""


def find_constants(plan: Plan, inputs: Sequence[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Weight -> what the removed positions along its axis 1 read, (positions,), 0 at all others.

    To be called while the removed units are silenced. Nothing is run if no function between makes something of 0.
    What a parameter of the model's own code reads is not seen: that it reads 0 is left to the comparison with the
    silenced model.

    Raises:
        SurgeryError: A consumer reads different values.
    """
    atoms = plan.trace.atoms
    shifted = np.intersect1d(atoms.roots(plan.trace.shifted_atoms()), plan.choice.removed)
    if not len(shifted):
        return {}
    reading = {
        name: ~mask
        for (name, axis), mask in plan.kept.items()
        if axis == 1 and atoms.roles[name, axis] == "in" and np.isin(atoms.roots(atoms.axes[name, axis]), shifted).any()
    }
    owners = {name: name.rpartition(".")[0] for name in reading}
    followed = [name for name in dict.fromkeys(owners.values()) if _is_plain(plan.model.get_submodule(name))]
    seen: dict[str, list[Tensor]] = {}
    for example in inputs:
        with evaluating(plan.model):
            for owner, call in calls(plan.model, followed, example):
                for local, rows in consumed(plan.model.get_submodule(owner), call):
                    seen.setdefault(full_name(owner, local), []).append(rows)
    return {name: _constant(name, reading[name], rows) for name, rows in seen.items() if name in reading}


def _is_plain(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, *CONVOLUTIONS, *RECURRENT))


def _constant(name: str, removed: Tensor, seen: Sequence[Tensor]) -> Tensor:
    rows = torch.cat([part.reshape(-1, removed.numel()) for part in seen])[:, removed]
    values = rows[0]
    if bool(((rows - values).abs() > _SAME * values.abs().clamp(min=1.0)).any()):
        raise SurgeryError(
            f"`{name}` reads units through a function that is not 0 at 0, and what it reads of a silent unit varies",
        )
    constant = torch.zeros(removed.numel(), dtype=rows.dtype)
    constant[removed] = values
    return constant


def take_up(smaller: nn.Module, plan: Plan, constants: Mapping[str, Tensor]) -> None:
    """Add what the removed positions read to the biases of their consumers, in place.

    Raises:
        SurgeryError: A consumer has no bias.
    """
    for name, constant in constants.items():
        if not bool(constant.any()):
            continue
        weight = tensor_of(plan.model, name).detach()
        products = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        added = products @ constant.to(weight.dtype)  # (outputs,)
        kept = plan.kept.get((name, 0))
        bias = _bias_of(plan.model, name)
        if bias is None:
            raise SurgeryError(
                f"`{name}` reads {float(constant[constant != 0][0]):.3g} of units that are 0, and its layer has no "
                "bias to take that up",
                hint="give that layer a bias of zeros",
            )
        with torch.no_grad():
            tensor_of(smaller, bias).add_(added if kept is None else added[kept])


def _bias_of(model: nn.Module, weight: str) -> str | None:
    """The bias that is added to the products of a weight; None if there is none."""
    owner, _, local = weight.rpartition(".")
    module = model.get_submodule(owner)
    if is_layer(module) or is_step_module(module):
        name = next(part.names.get("bias_ih") for part in parts(module) if part.names["weight_ih"] == local)
    else:
        name = "bias" if getattr(module, "bias", None) is not None else None
    return None if name is None else f"{owner}.{name}" if owner else name
