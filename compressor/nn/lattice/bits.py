"""Relations as packed bit rows, their Boolean product and their transitive closure.

Product and closure take eight rows at a time: the unions of all their 256 subsets are tabulated once, and every other
row picks its own by one byte (Arlazarov, Dinic, Kronrod and Faradzhev, On economical construction of the transitive
closure of a directed graph, 1970). That is n^3 / 512 word operations, in n / 8 steps of whole-matrix operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import UsageError
from compressor.nn.lattice.tiles import row_slices

_WORD, _OCTET = 64, 8


@dataclass(frozen=True, eq=False)
class Bits:
    """A Boolean matrix, 64 columns to a word; of a row's bytes, byte c holds the columns 8c..8c+7, lowest bit first."""

    words: Tensor
    """(rows, ceil(columns / 64)), int64; the bits behind the last column are 0. Not to be written to."""
    columns: int

    @classmethod
    def zeros(cls, rows: int, columns: int, device: torch.device) -> Bits:
        """All False."""
        return cls(torch.zeros(rows, -(-columns // _WORD), dtype=torch.int64, device=device), columns)

    @classmethod
    def identity(cls, size: int, device: torch.device) -> Bits:
        """The diagonal."""
        bits = cls.zeros(size, size, device)
        index = torch.arange(size, device=device)
        bits.octets[index, index // _OCTET] = (1 << (index % _OCTET)).to(torch.uint8)
        return bits

    @classmethod
    def pack(cls, dense: Tensor) -> Bits:
        """A boolean matrix (rows, columns)."""
        bits = cls.zeros(dense.size(0), dense.size(1), dense.device)
        places = _places(dense.device)
        for rows in row_slices(len(dense), dense.size(1), dense.device):
            octets = bits.octets[rows]  # (r, 8 * words)
            padded = dense.new_zeros(len(octets), octets.size(1) * _OCTET, dtype=torch.uint8)
            padded[:, : bits.columns] = dense[rows]
            octets.copy_((padded.view(*octets.shape, _OCTET) * places).sum(-1, dtype=torch.uint8))
        return bits

    def unpack(self, rows: Tensor | slice = slice(None)) -> Tensor:
        """The boolean matrix (rows, columns), or only some of its rows, which takes a byte an entry."""
        octets = self.words[rows].view(torch.uint8)  # (r, 8 * words)
        return ((octets[..., None] & _places(self.device)) != 0).flatten(1)[:, : self.columns]

    @property
    def octets(self) -> Tensor:
        """The same memory as bytes (rows, 8 * words)."""
        return self.words.view(torch.uint8)

    @property
    def device(self) -> torch.device:
        """Where the words are."""
        return self.words.device

    def __len__(self) -> int:
        return len(self.words)

    def __and__(self, other: Bits) -> Bits:
        return Bits(self.words & other.words, self.columns)

    def __or__(self, other: Bits) -> Bits:
        return Bits(self.words | other.words, self.columns)

    def __invert__(self) -> Bits:
        everything = Bits.pack(torch.ones(1, self.columns, dtype=torch.bool, device=self.device))
        return Bits(~self.words & everything.words, self.columns)

    def __matmul__(self, other: Bits) -> Bits:
        """Boolean product: (i, j) is True if (i, k) of this and (k, j) of the other are True for some k."""
        if self.columns != len(other):
            raise UsageError(
                f"a relation of {self.columns} columns cannot be composed with one of {len(other)} rows",
                hint="transpose one of them",
            )
        result = Bits.zeros(len(self), other.columns, self.device)
        for octet, first in enumerate(range(0, len(other), _OCTET)):
            _add_unions(result.words, other.words[first : first + _OCTET], self.octets[:, octet])
        return result

    def equal(self, other: Bits) -> bool:
        """Same shape and entries."""
        return self.columns == other.columns and self.words.equal(other.words)

    def counts(self) -> Tensor:
        """The number of True in each row, (rows,) int64."""
        pieces = [self.unpack(rows).sum(1) for rows in row_slices(len(self), self.columns, self.device)]
        return torch.cat(pieces) if pieces else self.words.new_zeros(0)

    def transpose(self) -> Bits:
        """The converse relation."""
        result = Bits.zeros(self.columns, len(self), self.device)
        for first in range(0, len(self), _WORD * _OCTET):
            block = Bits.pack(self.unpack(slice(first, first + _WORD * _OCTET)).T)  # (columns, up to 512)
            result.words[:, first // _WORD : first // _WORD + block.words.size(1)] = block.words
        return result

    def select(self, rows: Tensor, columns: Tensor) -> Bits:
        """The submatrix at these indices of rows (r,) and columns (c,), in their order."""
        result = Bits.zeros(len(rows), len(columns), self.device)
        for part in row_slices(len(rows), self.columns, self.device):
            result.words[part] = Bits.pack(self.unpack(rows[part])[:, columns]).words
        return result


def transitive_closure(relation: Bits) -> Bits:
    """The least reflexive and transitive relation that contains this square one.

    Warshall's algorithm (A theorem on Boolean matrices, 1962) in blocks of eight pivots: the pivots' rows are closed
    among themselves, then every row takes the union of the pivots that it holds. Takes n^2 bits and 256 rows.

    Raises:
        UsageError: the relation is not square.
    """
    if len(relation) != relation.columns:
        raise UsageError(
            f"a relation of {len(relation)} rows and {relation.columns} columns has no transitive closure",
            hint="pass a square one",
        )
    closed = relation | Bits.identity(len(relation), relation.device)
    for octet, first in enumerate(range(0, len(closed), _OCTET)):
        pivots = closed.words[first : first + _OCTET]
        own = closed.octets[first : first + _OCTET, octet]
        for k, pivot in enumerate(pivots):
            pivots |= (own >> k & 1).long()[:, None] * pivot  # (8, words)
        _add_unions(closed.words, pivots, closed.octets[:, octet])
    return closed


def _add_unions(words: Tensor, pivots: Tensor, picks: Tensor) -> None:
    """Unite every row, in place, with the pivots at which its byte has a 1.

    Args:
        words: (rows, words), int64.
        pivots: Up to eight rows (p, words).
        picks: A byte (rows,) for each row; bit k is about pivot k.
    """
    table = torch.zeros_like(pivots[:1])
    for pivot in pivots:
        table = torch.cat([table, table | pivot])  # (2^k, words): the unions of all subsets of the first k
    index = picks.long()
    for rows in row_slices(len(words), words.size(1), words.device):
        words[rows] |= table.index_select(0, index[rows])


def _places(device: torch.device) -> Tensor:
    """1, 2, 4, ... 128, the values of a byte's bits (8,)."""
    return (1 << torch.arange(_OCTET, device=device)).to(torch.uint8)
