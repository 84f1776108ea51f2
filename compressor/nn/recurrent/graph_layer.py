"""One recurrent layer of a stack on a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.nn.recurrent.cells import CELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.nn.factory import FactoryOptions
    from compressor.nn.recurrent.graph_layout import CellWord, Connection


class GraphLayer(nn.Module):
    """One recurrent layer of a stack: a native one, behind a choice of its inputs and before a place for its outputs.

    `recurrent` is a one-layer, one-direction layer of PyTorch's, time first.
    """

    columns: Tensor | None
    """Units (I,) of the source layers' outputs, side by side, that are read; None if all are."""
    places: Tensor | None
    """For each unit of the target layer its place in this layer's output, H if it has none; None if all have."""

    def __init__(
        self,
        cell: CellWord,
        connection: Connection,
        input_size: int,
        units_per_node: int,
        widths: tuple[int, int],
        factory: FactoryOptions,
    ) -> None:
        """Build it with PyTorch's initial weights.

        Args:
            cell: What kind of layer it is.
            connection: What it reads and computes.
            input_size: Features of the stack's input, which a connection without a source layer reads.
            units_per_node: Units of a node.
            widths: Nodes of all source layers together (0 if there is none) and of the target layer.
            factory: See `FactoryOptions`.
        """
        super().__init__()
        self.connection = connection
        self._units_per_node = units_per_node
        self._widths = widths
        inputs = units_per_node * len(connection.reads) if connection.sources else input_size
        self.recurrent = CELLS[cell.upper()].layer(inputs, units_per_node * len(connection.targets), **factory)
        self.place_indices(factory.get("device"))

    def place_indices(self, device: torch.device | str | None) -> None:
        """Compute the buffers `columns` and `places`, which are no part of the state dict, on a device."""
        sources, targets = self._widths
        columns = places = None
        if len(self.connection.reads) < sources:
            columns = _units(torch.tensor(self.connection.reads), self._units_per_node).to(device)
        if len(self.connection.targets) < targets:
            computed = _units(torch.tensor(self.connection.targets), self._units_per_node)
            places = torch.full((targets * self._units_per_node,), len(computed))
            places[computed] = torch.arange(len(computed))
            places = places.to(device)
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("places", places, persistent=False)

    def forward(self, sources: Sequence[Tensor], state: Any) -> tuple[Tensor, Any]:
        """Run over the outputs of its sources, each (T, B, units): (T, B, units of the target layer), states."""
        sequence = sources[0] if len(sources) == 1 else torch.cat(list(sources), -1)
        inputs = sequence if self.columns is None else sequence.index_select(-1, self.columns)  # (T, B, I)
        output, last = self.recurrent(inputs, state)  # (T, B, H)
        if self.places is not None:
            output = nn.functional.pad(output, (0, 1)).index_select(-1, self.places)  # a zero for units without place
        return output, last

    def mask(self, *, repeated_rows: bool) -> Tensor | None:
        """The mask (G * H, I) of `weight_ih`; None if it keeps everything."""
        block, k = self.connection.mask, self._units_per_node
        if bool(block.all()):  # the mask of layer 0 is empty
            return None
        units = block.repeat_interleave(k, 0).repeat_interleave(k, 1)  # (H, I)
        gates = CELLS[self.recurrent.mode].gates.count
        return units.repeat_interleave(gates, 0) if repeated_rows else units.repeat(gates, 1)


def _units(nodes: Tensor, units_per_node: int) -> Tensor:
    """The units of nodes, by their places: (N,) -> (N * k,)."""
    return (nodes[:, None] * units_per_node + torch.arange(units_per_node)).flatten()
