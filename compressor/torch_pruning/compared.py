"""A pruning step in which every removal is compared with the original whose removed channels are silent."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import SurgeryError
from compressor.nn.recurrent.layers import RECURRENT, parts
from compressor.surgery.equivalence import check_agreement, evaluating_on_cpu, forward

if TYPE_CHECKING:
    from collections.abc import Sequence


def step(pruner: Any, *examples: Any) -> int:
    """`pruner.step()`, refused if a removal does not give what the original gives with these channels silenced.

    Silent means: the weights with which the next layers take the channels in are zero, and a `LayerNorm` looks at the
    kept features only. The removal must give the same outputs then (within 1e-4 in float32, 1e-9 in float64).

    Args:
        pruner: Any pruner of Torch-Pruning.
        examples: Inputs on which outputs are compared, each a tensor or a tuple of positional arguments. Give one of
            another length and batch size too: code that fixes a size shows there.

    Returns:
        How many groups of channels were cut.

    Raises:
        SurgeryError: There is no example, nothing was cut, or a removal does not agree. The model is as before then,
            the pruner should be built anew.
    """
    if not examples:
        raise SurgeryError("no inputs to compare on", hint="call `step(pruner, x)` with example inputs of the model")
    inputs = [tuple(part.cpu() for part in _arguments(example)) for example in examples]
    model: nn.Module = pruner.model
    before = {module: _contents(module) for module in model.modules()}
    cut = 0
    try:
        for group in pruner.step(interactive=True):
            with evaluating_on_cpu(_silenced(model, group, pruner.DG)) as silenced:
                expected = [forward(silenced, example, "silenced") for example in inputs]
            group.prune()
            cut += 1
            with evaluating_on_cpu(model) as smaller:
                for example, outputs in zip(inputs, expected, strict=True):
                    what = f"channels (cut with `{pruner.DG._module2name[group[0].dep.target.module]}`)"
                    check_agreement(forward(smaller, example, "smaller"), outputs, example, what=what)
    except Exception:
        for module, contents in before.items():
            _restore(module, contents)
        raise
    if not cut:
        raise SurgeryError(
            "Torch-Pruning cut nothing", hint="raise `pruning_ratio`, or ignore fewer layers; see its warnings"
        )
    return cut


def _arguments(example: Any) -> tuple[Tensor, ...]:
    return tuple(example) if isinstance(example, (tuple, list)) else (example,)


_TABLES = ("_parameters", "_buffers", "_modules")


def _contents(module: nn.Module) -> dict[str, Any]:
    """All that a removal replaces: it sets new tensors and numbers, and writes into none of the old ones."""
    own = dict(vars(module))
    return own | {table: dict(own[table]) for table in _TABLES}


def _restore(module: nn.Module, contents: dict[str, Any]) -> None:
    vars(module).clear()
    vars(module).update(contents)


def _silenced(model: nn.Module, group: Any, graph: Any) -> nn.Module:
    """A copy of the model in which nothing takes the channels of the group in."""
    silenced = copy.deepcopy(model)
    names = {module: name for name, module in model.named_modules()}
    with torch.no_grad():
        for dep, indices in group.items:
            name = names.get(dep.target.module)
            if name is None:
                continue
            module = silenced.get_submodule(name)
            if isinstance(module, nn.LayerNorm):
                silenced.set_submodule(name, _KeptNorm(module, indices))
            elif isinstance(module, RECURRENT):
                _silence_recurrent(module, indices, outputs=graph.is_out_channel_pruning_fn(dep.handler))
            elif not graph.is_out_channel_pruning_fn(dep.handler) and isinstance(
                module, (nn.Linear, nn.modules.conv._ConvNd)
            ):
                _silence_inputs(module, indices)
    return silenced


def _silence_inputs(module: nn.Linear | nn.modules.conv._ConvNd, indices: Sequence[int]) -> None:
    if isinstance(module, nn.Linear):
        module.weight[:, list(indices)] = 0.0
        return
    if module.transposed:
        module.weight[list(indices)] = 0.0
        return
    columns, rows = module.in_channels // module.groups, module.out_channels // module.groups
    for index in indices:
        group, column = divmod(index, columns)
        module.weight[group * rows : (group + 1) * rows, column] = 0.0


def _silence_recurrent(module: Any, indices: Sequence[int], *, outputs: bool) -> None:
    for part in parts(module):
        weight_ih, weight_hh = (getattr(module, part.names[name]) for name in ("weight_ih", "weight_hh"))
        if outputs:
            weight_hh[:, [index % weight_hh.size(1) for index in indices]] = 0.0
        if outputs == (part.layer > 0):
            weight_ih[:, list(indices)] = 0.0


class _KeptNorm(nn.Module):
    """A `LayerNorm` over the features that stay; it gives 0 for the others."""

    def __init__(self, norm: nn.LayerNorm, lost: Sequence[int]) -> None:
        super().__init__()
        size = norm.normalized_shape[-1]
        stays = torch.ones(size, dtype=torch.bool)
        stays[list(lost)] = False
        self.register_buffer("stays", stays)
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis."""
        stays: Tensor = self.stays  # type: ignore[assignment]
        kept = x[..., stays]
        weight, bias = (None if item is None else item[stays] for item in (self.weight, self.bias))
        result = torch.zeros_like(x)
        result[..., stays] = nn.functional.layer_norm(kept, kept.shape[-1:], weight, bias, self.eps)
        return result
