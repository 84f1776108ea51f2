"""States that enter and leave a model as its inputs and outputs (streaming) shrink with the units that they carry.

A record says which inputs and outputs lost which positions: `{"kind": "edges", "inputs": {"1": {"axis": 2, "size": 128,
"kept": [0, 3, ...]}}, "outputs": {...}}`, keyed by position in the model's arguments and results. With
`"module": "decoder"` they are those of a module that is a file of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

KIND = "edges"


def input_name(index: int) -> str:
    """The name of a model input among the names of parameters; no parameter can be called so."""
    return f"<input {index}>"


def output_name(index: int) -> str:
    """The same for an output."""
    return f"<output {index}>"


def is_edge(name: str) -> bool:
    """True for the names above."""
    return name.startswith("<")


@dataclass(frozen=True)
class Cut:
    """One axis of an input or output that lost positions."""

    index: int
    axis: int
    size: int
    """Before the cut: a tensor of this size has still to be cut, one that came out of the smaller model not."""
    kept: tuple[int, ...]
    starts: bool = False
    """An input that only starts a state, which no output carries on: it keeps its size, and the model picks entries."""
    rows: tuple[tuple[int, ...], ...] = ()
    """For a state of several layers (L, B, H): the kept positions of each; `kept` are those of the first."""

    def __call__(self, tensor: Tensor) -> Tensor:
        """The kept positions, of a tensor that still has all of them."""
        if tensor.dim() <= self.axis or tensor.size(self.axis) != self.size:
            return tensor
        if not self.rows:
            return tensor.index_select(self.axis, torch.tensor(self.kept, device=tensor.device))
        if len(tensor) != len(self.rows):
            return tensor
        rows = [torch.tensor(kept, device=tensor.device) for kept in self.rows]
        return torch.stack([part.index_select(self.axis - 1, row) for part, row in zip(tensor, rows, strict=True)])

    def silence(self, tensor: Tensor) -> Tensor:
        """All positions; those that are removed are 0."""
        if self.rows:
            cuts = [Cut(self.index, self.axis - 1, self.size, kept) for kept in self.rows]
            return torch.stack([cut.silence(part) for cut, part in zip(cuts, tensor, strict=True)])
        removed = torch.tensor(sorted(set(range(self.size)) - set(self.kept)), device=tensor.device)
        return tensor.index_fill(self.axis, removed, 0.0)


@dataclass(frozen=True)
class Edges:
    """All cuts of one removal."""

    inputs: tuple[Cut, ...] = ()
    outputs: tuple[Cut, ...] = ()
    module: str = ""
    """Whose inputs and outputs; empty: the model's own."""

    @classmethod
    def from_masks(
        cls, masks: Mapping[tuple[str, int], Tensor], carried: Container[int], read: Mapping[int, Sequence[int]]
    ) -> Edges:
        """The cuts of a removal.

        Args:
            masks: (`<input 1>`, axis) -> True = kept.
            carried: Inputs that an output carries on.
            read: Of inputs that the model itself cuts since an earlier removal, what it reads.
        """
        cuts: dict[str, list[Cut]] = {"input": [], "output": []}
        for (name, axis), mask in masks.items():
            kind, index = re.fullmatch(r"<(\w+) (\d+)>", name).groups()  # type: ignore[union-attr]
            kept = tuple(mask.nonzero().flatten().tolist())
            if kind == "input" and int(index) in read:
                kept = tuple(position for position in kept if position in read[int(index)])
            starts = kind == "input" and int(index) not in carried
            cuts[kind].append(Cut(int(index), axis, mask.numel(), kept, starts))
        return cls(tuple(cuts["input"]), tuple(cuts["output"]))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Edges:
        """From the JSON record."""

        def cuts(entries: Mapping[str, Any]) -> tuple[Cut, ...]:
            return tuple(
                Cut(
                    int(i),
                    int(e["axis"]),
                    int(e["size"]),
                    tuple(e["kept"]),
                    bool(e.get("starts")),
                    tuple(map(tuple, e.get("rows", ()))),
                )
                for i, e in entries.items()
            )

        return cls(cuts(record["inputs"]), cuts(record["outputs"]), record.get("module", ""))

    def record(self) -> dict[str, Any]:
        """The JSON record."""

        def entries(cuts: Iterable[Cut]) -> dict[str, Any]:
            return {
                str(cut.index): {"axis": cut.axis, "size": cut.size, "kept": list(cut.kept)}
                | ({"starts": True} if cut.starts else {})
                | ({"rows": [list(row) for row in cut.rows]} if cut.rows else {})
                for cut in cuts
            }

        of = {"module": self.module} if self.module else {}
        return {"kind": KIND, **of, "inputs": entries(self.inputs), "outputs": entries(self.outputs)}

    @property
    def starting(self) -> tuple[Cut, ...]:
        """The inputs that keep their size."""
        return tuple(cut for cut in self.inputs if cut.starts)

    @property
    def carried(self) -> Edges:
        """Without the inputs that keep their size."""
        return replace(self, inputs=tuple(cut for cut in self.inputs if not cut.starts))

    def silence(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The model's arguments with the removed units of the states set to 0."""
        parts = list(inputs)
        for cut in self.inputs:
            parts[cut.index] = cut.silence(parts[cut.index])
        return tuple(parts)

    def narrow(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The model's arguments with the states cut to the kept units, if they are not yet."""
        parts = list(inputs)
        for cut in self.inputs:
            if cut.index < len(parts) and isinstance(parts[cut.index], Tensor):
                parts[cut.index] = cut(parts[cut.index])
        return tuple(parts)


class NarrowingHook:
    """A forward pre-hook: the smaller model also takes states of the size that it had before.

    It is part of an exported model: what an input that keeps its size loses is a Gather in the file.
    """

    def __init__(self) -> None:
        """Nothing is cut yet."""
        self.edges: tuple[Edges, ...] = ()

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Cut the states among the positional arguments."""
        return narrowed(self.edges, inputs)


def narrow_inputs(model: nn.Module, edges: Edges) -> None:
    """Let a model cut its inputs as one more removal has it."""
    hook = _hook_of(model)
    if hook is None:
        hook = NarrowingHook()
        model.register_forward_pre_hook(hook)
    hook.edges += (edges,)


def _hook_of(model: nn.Module) -> NarrowingHook | None:
    return next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, NarrowingHook)), None)


def _removals(model: nn.Module) -> tuple[Edges, ...]:
    """What a model has lost of its inputs and outputs, the first removal first."""
    hook = _hook_of(model)
    return () if hook is None else hook.edges


def starting_inputs(model: nn.Module) -> dict[int, Cut]:
    """Place of an input that keeps its size since units were removed -> what the model reads of it now."""
    return {cut.index: cut for edges in _removals(model) for cut in edges.starting}


def narrowed_target(model: nn.Module, outputs: Any, target: Any) -> Any:
    """A training target whose states are of the size that `outputs` has since units were removed.

    A tensor in the target is taken for the state that an output gives if it has its shape but for the axis of units.

    Args:
        model: Gives `outputs`.
        outputs: What it gave.
        target: Tensors in any structure.
    """
    given = [part for part in tree_flatten(outputs)[0] if isinstance(part, Tensor)]
    for cut in (cut for edges in _removals(model) for cut in edges.outputs):
        target = tree_map_only(Tensor, partial(_like, cut, given[cut.index]), target)
    return target


def _like(cut: Cut, output: Tensor, target: Tensor) -> Tensor:
    """The target of an output, cut as it is; any other tensor as it is."""
    smaller = cut(target) if target.is_floating_point() else target
    return smaller if smaller.size() == output.size() else target


def narrowed(removals: Sequence[Edges], inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs cut by several removals, the first one first.

    A later removal tells what is left of the input's size at its own time: of the first size, if the model itself has
    cut it since, or of what the one before left.
    """
    for edges in (*reversed(removals), *removals):
        inputs = edges.narrow(inputs)
    return inputs
