"""States that enter and leave a model as its inputs and outputs (streaming) shrink with the units that they carry.

A record says which inputs and outputs lost which positions: `{"kind": "edges", "inputs": {"1": {"axis": 2, "size": 128,
"kept": [0, 3, ...]}}, "outputs": {...}}`, keyed by position in the model's arguments and results. With
`"module": "decoder"` they are those of a module that is a file of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    def from_masks(cls, masks: Mapping[tuple[str, int], Tensor]) -> Edges:
        """From (`<input 1>`, axis) -> True = kept."""
        cuts: dict[str, list[Cut]] = {"input": [], "output": []}
        for (name, axis), mask in masks.items():
            kind, index = re.fullmatch(r"<(\w+) (\d+)>", name).groups()  # type: ignore[union-attr]
            cuts[kind].append(Cut(int(index), axis, mask.numel(), tuple(mask.nonzero().flatten().tolist())))
        return cls(tuple(cuts["input"]), tuple(cuts["output"]))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Edges:
        """From the JSON record."""

        def cuts(entries: Mapping[str, Any]) -> tuple[Cut, ...]:
            return tuple(
                Cut(int(i), int(e["axis"]), int(e["size"]), tuple(e["kept"]), tuple(map(tuple, e.get("rows", ()))))
                for i, e in entries.items()
            )

        return cls(cuts(record["inputs"]), cuts(record["outputs"]), record.get("module", ""))

    def record(self) -> dict[str, Any]:
        """The JSON record."""

        def entries(cuts: Iterable[Cut]) -> dict[str, Any]:
            return {
                str(cut.index): {"axis": cut.axis, "size": cut.size, "kept": list(cut.kept)}
                | ({"rows": [list(row) for row in cut.rows]} if cut.rows else {})
                for cut in cuts
            }

        of = {"module": self.module} if self.module else {}
        return {"kind": KIND, **of, "inputs": entries(self.inputs), "outputs": entries(self.outputs)}

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
    """A forward pre-hook: the smaller model also takes states of the size that it had before."""

    def __init__(self, edges: Edges) -> None:
        """For the cuts of one removal."""
        self.edges = edges

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Cut the states among the positional arguments."""
        return self.edges.narrow(inputs)
