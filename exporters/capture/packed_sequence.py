"""Lets models that pack variable-length batches be traced: a packed sequence stays padded and carries its lengths.

`PackedSequence` interleaves the samples by time step, which no exporter can trace. The native ONNX nodes take the
padded batch and `sequence_lens` instead: outputs past a sample's length are zero, last states those at its last step.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from compressor.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor


class PaddedSequence:
    """What a model holds in place of a `torch.nn.utils.rnn.PackedSequence` while it is traced."""

    def __init__(self, padded: Tensor, lengths: Tensor, longest: int | torch.SymInt, *, zero_padded: bool) -> None:
        """Keep the parts.

        Args:
            padded: (T, B, ...), with T at least `longest`.
            lengths: (B,), int64, in the order of the batch.
            longest: The maximum of `lengths`.
            zero_padded: Everything past a sample's length is known to be zero.
        """
        self.padded = padded
        self.lengths = lengths
        self.longest = longest
        self.zero_padded = zero_padded

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """`PackedSequence`, so that a model which asks with `isinstance` takes the same path as in PyTorch."""
        from torch.nn.utils.rnn import PackedSequence

        return PackedSequence

    @property
    def node_lengths(self) -> Tensor:
        """`sequence_lens` of the native nodes: (B,), int32."""
        import torch

        return self.lengths.to(torch.int32)

    def with_steps(self, padded: Tensor) -> PaddedSequence:
        """The same lengths over `padded` (T, B, ...), which is zero past them."""
        return PaddedSequence(padded, self.lengths, self.longest, zero_padded=True)

    def masked(self, value: float) -> Tensor:
        """`padded` (T, B, ...) with `value` past each sample's length."""
        import torch

        if self.zero_padded and value == 0.0:
            return self.padded
        steps = torch.arange(self.padded.shape[0])
        valid = steps[:, None] < self.lengths[None, :]  # (T, B)
        valid = valid.reshape(valid.shape + (1,) * (self.padded.dim() - 2))
        return torch.where(valid, self.padded, torch.tensor(value, dtype=self.padded.dtype))

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse the fields of a `PackedSequence`, which do not exist here."""
        if name.startswith("__"):
            raise AttributeError(name)
        raise ExportError(
            f"the model reads `{name}` of a PackedSequence, which cannot be exported",
            hint="call pad_packed_sequence first and work on the padded tensor",
        )


@contextmanager
def traceable_packing() -> Iterator[None]:
    """Within the block, pack_padded_sequence and pad_packed_sequence make and read a `PaddedSequence`.

    Models import these functions under names of their own, so the code of the two function objects is exchanged and
    not a name: whoever holds a reference gets the traceable form.
    """
    from torch.nn.utils import rnn

    functions: tuple[Any, ...] = (rnn.pack_padded_sequence, rnn.pad_packed_sequence)
    originals = [function.__code__ for function in functions]
    for function, replacement in zip(functions, (_pack_padded_sequence, _pad_packed_sequence), strict=True):
        function.__code__ = replacement.__code__
    try:
        yield
    finally:
        for function, code in zip(functions, originals, strict=True):
            function.__code__ = code
        _longest_of.clear()


# The code of these two runs with the globals of `torch.nn.utils.rnn`; names of this module have to be imported.


def _pack_padded_sequence(
    input: Tensor,  # noqa: A002 the name in PyTorch
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,  # the order stays as it is, and PyTorch restores it too
) -> PaddedSequence:
    from exporters.capture.packed_sequence import pack

    return pack(input, lengths, batch_first)


def _pad_packed_sequence(
    sequence: PaddedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: Any = None
) -> tuple[Tensor, Tensor]:
    from exporters.capture.packed_sequence import pad

    return pad(sequence, batch_first, padding_value, total_length)


class _Longest:
    """One symbol for each lengths tensor: two layers packed with the same lengths then agree on their time axis."""

    def __init__(self) -> None:
        self._known: list[tuple[Tensor, Any]] = []
        self.full = False
        """All lengths are known to be the size of the time axis."""

    def __call__(self, lengths: Tensor, limit: Any) -> Any:
        """The maximum of `lengths` (B,), which is known to lie in 1..`limit`."""
        import torch

        if self.full:
            return limit

        for known, longest in self._known:
            if known is lengths:
                return longest
        longest = lengths.max().item()
        torch._check(longest >= 1)
        torch._check(longest <= limit)
        self._known.append((lengths, longest))
        return longest

    def clear(self) -> None:
        self._known.clear()


_longest_of = _Longest()


@contextmanager
def full_lengths() -> Iterator[None]:
    """Within the block, sequences that are packed while a model is traced are known to have no padding."""
    _longest_of.full = True
    try:
        yield
    finally:
        _longest_of.full = False


def pack(padded: Tensor, lengths: Any, batch_first: bool) -> PaddedSequence:
    """What pack_padded_sequence gives while a model is traced; `padded` is (T, B, ...) or, batch first, (B, T, ...)."""
    import torch

    if not isinstance(lengths, torch.Tensor):
        raise ExportError(
            "pack_padded_sequence is given its lengths as a list, which fixes the batch size",
            hint="give it the tensor of lengths itself, without `.tolist()`",
        )
    lengths = lengths.to(torch.int64)
    time_major = padded.transpose(0, 1) if batch_first else padded  # (T, B, ...)
    longest = _longest_of(lengths, time_major.shape[0])
    return PaddedSequence(time_major, lengths, longest, zero_padded=_longest_of.full)


def pad(sequence: PaddedSequence, batch_first: bool, padding_value: float, total_length: Any) -> tuple[Tensor, Tensor]:
    """What pad_packed_sequence gives while a model is traced: (T, B, ...) or (B, T, ...), and the lengths (B,).

    T is `total_length`, or the longest length if it is None.
    """
    import torch

    padded = sequence.masked(padding_value)
    if total_length is None:
        padded = padded if sequence.longest is padded.shape[0] else padded[: sequence.longest]
    elif str(total_length) != str(padded.shape[0]):  # compared as expressions: `!=` would fix the axis to one case
        tail = padded.new_full((total_length, *padded.shape[1:]), padding_value)
        padded = torch.cat([padded, tail])[:total_length]
    return padded.transpose(0, 1) if batch_first else padded, sequence.lengths
