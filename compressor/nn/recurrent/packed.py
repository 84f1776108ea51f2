"""Sequences that may be packed: their features, the same batch with other features, and each sample reversed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

Steps = Tensor | PackedSequence
"""A batch of sequences: (T, B, F), or packed."""


def features(sequence: Steps) -> Tensor:
    """The features: (T, B, F), or of a packed sequence (steps of all samples, F)."""
    return sequence.data if isinstance(sequence, PackedSequence) else sequence


def with_features(sequence: Steps, data: Tensor) -> Steps:
    """The same batch with other features."""
    if isinstance(sequence, PackedSequence):
        return PackedSequence(data, sequence.batch_sizes, sequence.sorted_indices, sequence.unsorted_indices)
    return data


def packed_like(packed: PackedSequence, padded: Tensor, lengths: Tensor) -> PackedSequence:
    """The same batch as a packed one, with features (T, B, F) and lengths (B,) in the order of the padded batch."""
    lengths = lengths.cpu()
    if packed.sorted_indices is not None:
        order = packed.sorted_indices
        padded, lengths = padded.index_select(1, order), lengths[order.cpu()]
    return with_features(packed, pack_padded_sequence(padded, lengths).data)  # type: ignore[return-value]


def backward(sequence: Steps, order: Tensor | None) -> Steps:
    """Each sample backward in time; `order` is the `reversing_order` of a packed sequence, None for a plain one."""
    data = features(sequence)
    return with_features(sequence, data.flip(0) if order is None else data.index_select(0, order))


def reversing_order(sequence: PackedSequence) -> Tensor:
    """For each row of the packed data, the row that takes its place when every sample is reversed by its own length.

    Row `starts[t] + b` holds step t of the b-th longest sample, and gets step `lengths[b] - 1 - t`; doing it twice
    gives the sequence back.
    """
    sizes = sequence.batch_sizes  # (T,), on the CPU
    running = torch.arange(int(sizes[0])) < sizes[:, None]  # (T, B): the sample is not over yet
    starts, lengths = sizes.cumsum(0) - sizes, running.sum(0)
    step, sample = running.nonzero(as_tuple=True)
    return (starts[lengths[sample] - 1 - step] + sample).to(sequence.data.device)
