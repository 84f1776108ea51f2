"""What a function between a unit and its consumers makes of a unit that is 0: a constant, which a bias takes up.

A sigmoid gives 0.5 for a unit that is silent, `1 - h` gives 1. The consumers of a removed unit no longer read that
constant c; their weights W times c go into their bias, and the outputs stay those that silencing the unit gives.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.names import full_name
from compressor.nn.recurrent.layers import RECURRENT, is_layer, is_step_module, parts
from compressor.surgery.refit.calibration import CONVOLUTIONS, calls, consumed, evaluating
from compressor.surgery.units.products import Products
from compressor.surgery.units.resize import tensor_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.surgery.units.planning import Plan

_SAME = 1e-6
"""Largest spread of a constant, relative to it; more is no constant."""


@dataclass(frozen=True)
class Constant:
    """What a weight reads of removed units that are 0."""

    values: Tensor
    """(positions,) along its axis 1, 0 at those that stay."""
    bias: str | None
    """The parameter that is added to its products."""


def find_constants(plan: Plan, inputs: Sequence[tuple[Tensor, ...]]) -> dict[str, Constant]:
    """Weight -> what it reads at the removed positions along its axis 1, if that is not 0.

    To be called while the removed units are silenced. Nothing is run if no function between makes something of 0.
    What a parameter of the model's own code reads in another operation than a product is not seen: that it reads 0 is
    left to the comparison with the silenced model.

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
    own = [name for name in reading if owners[name] not in followed]
    products = Products(plan.model, own)
    seen: dict[str, list[Tensor]] = {}
    for example in inputs:
        with evaluating(plan.model), products if own else nullcontext():
            seen_calls = calls(plan.model, followed, example)
        with evaluating(plan.model):
            for owner, call in seen_calls:
                for local, rows in consumed(plan.model.get_submodule(owner), call):
                    seen.setdefault(full_name(owner, local), []).append(rows)
    constants = {}
    for name, read in (seen | products.inputs).items():
        values = _constant(name, reading[name], read) if name in reading else torch.zeros(0)
        if bool(values.any()):
            bias = products.bias_of(name) if name in own else _bias_of(plan.model, name)
            constants[name] = Constant(values, bias)
    return constants


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


def take_up(smaller: nn.Module, plan: Plan, constants: Mapping[str, Constant]) -> None:
    """Add what the removed positions read to the biases of their consumers, in place.

    Raises:
        SurgeryError: A consumer has no bias.
    """
    for name, found in constants.items():
        constant, bias = found.values, found.bias
        weight = tensor_of(plan.model, name).detach()
        products = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
        added = products @ constant.to(weight.dtype)  # (outputs,)
        kept = plan.kept.get((name, 0))
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
