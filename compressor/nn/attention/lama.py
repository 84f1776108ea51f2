"""Compact multi-head pooling of a sequence by rank-1 heads, one query for the whole sequence.

After Mehta, Rangwala and Ramakrishnan, "Low Rank Factorization for Compact Multi-Head Self-Attention" (LAMA, arXiv
1912.00835), from the formulas of its Figure 1. If the figure is silent, a docstring says what was chosen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn

from compressor.nn.record import LayerRecord, RecordedLayer, Size

if TYPE_CHECKING:
    from compressor.nn.factory import FactoryOptions

ContextKind = Literal["learned", "mean"]

_SMALLEST_SQUARE = 1e-12
"""Added to the squared norm over the heads, so that a step at which every head is 0 has a gradient that is finite."""
_PADDED = -1e4
"""Score of a padded step: scores lie in -1..1, so its weight is exactly 0, and float16 can hold the number."""


class LamaRecord(LayerRecord):
    """What a `LamaAttention` is built from."""

    width: Size
    heads: Size
    context: ContextKind
    mlp: bool


def parameter_count(width: int, heads: int, context: ContextKind = "learned", *, mlp: bool = False) -> int:
    """Number of parameters of a `LamaAttention`: 2 D m, D for a learned context, D^2 + D for the MLP.

    With D = 2h of a bidirectional layer, the first is the 4hm of the paper.
    """
    total = 2 * width * heads + (width if context == "learned" else 0)
    return total + (width * width + width if mlp else 0)


class LamaAttention(RecordedLayer):
    r"""m weighted means of a sequence, whose weights are m rank-1 bilinear forms of a step and one context vector.

    With steps :math:`h_t` of D features, P and Q (D, m), and a context vector c (D,):

    .. math::
        u_t &= \tanh(W h_t + b) \text{ with the MLP, else } h_t \\
        g_t &= \tanh(P^T c \circ Q^T u_t) \in R^m \\
        f_t &= g_t / \sqrt{|g_t|^2 + 10^{-12}} \\
        A &= \mathrm{softmax}_t [f_1 \dots f_T] \in R^{m \times T} \\
        S &= A H^T \in R^{m \times D}

    So head i weighs step t by :math:`c^T (p_i q_i^T) u_t`, a bilinear form of rank 1 (`head_forms`), and the norm runs
    over the heads. Scores take O(T D m), not O(T^2). Since they lie in -1..1, no step weighs more than :math:`e^2`
    times another in a head; and since their squares add up to 1 over the heads, weights get flatter as m grows. With
    m = 1 a score is -1 or 1 and P, Q and c have practically no gradient.

    The context is a parameter (`learned`) or the mean of :math:`h_t` over the steps that are real (`mean`, "LAMA +
    ctx"); that the mean is taken of h and not of u is our reading. So are the MLP's form, from hierarchical attention
    networks, and that it is off: the public port has none.

    A padded step has weight 0 and may hold anything, NaN included. A sequence without a real step gives zeros.
    """

    record_type: ClassVar[type[LayerRecord]] = LamaRecord

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context: ContextKind = "learned",
        mlp: bool = False,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        r"""Build it: P, Q and the MLP from :math:`U(\pm 1/\sqrt{D})`, c from a standard normal distribution.

        Args:
            width: D >= 1.
            heads: m >= 1.
            context: Where c comes from.
            mlp: Put the MLP before the scores.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.width = width
        self.heads = heads
        self.context = context
        self.p = nn.Parameter(torch.empty(width, heads, **factory))
        self.q = nn.Parameter(torch.empty(width, heads, **factory))
        self.c = nn.Parameter(torch.empty(width, **factory)) if context == "learned" else None
        self.mlp = nn.Linear(width, width, **factory) if mlp else None
        self.reset_parameters()

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds an attention of this structure."""
        return {"width": self.width, "heads": self.heads, "context": self.context, "mlp": self.mlp is not None}

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        bound = 1.0 / math.sqrt(self.width)
        nn.init.uniform_(self.p, -bound, bound)
        nn.init.uniform_(self.q, -bound, bound)
        if self.c is not None:
            nn.init.normal_(self.c)
        if self.mlp is not None:
            self.mlp.reset_parameters()

    @property
    def rows(self) -> int:
        """Number of vectors that it makes of a sequence: m."""
        return self.heads

    def forward(self, sequence: Tensor, real: Tensor | None = None) -> Tensor:
        """Pool.

        Args:
            sequence: H (B, T, D), T >= 1.
            real: (B, T) bool, True = no padding; or lengths (B,) of any integer type, the real steps being the first
                ones. All steps are real if left out.

        Returns:
            S (B, m, D).
        """
        real = _as_mask(real, sequence)
        sequence = without_padding(sequence, real)  # (B, T, D)
        scores = self.scores(sequence, real)  # (B, T, m)
        if real is not None:
            scores = scores.masked_fill(~real.unsqueeze(-1), _PADDED)
        return scores.softmax(1).transpose(1, 2) @ sequence  # (B, m, D)

    def scores(self, sequence: Tensor, real: Tensor | None = None) -> Tensor:
        """Scores f (B, T, m), before padded steps get theirs; those steps have to hold zeros."""
        steps = sequence if self.mlp is None else torch.tanh(self.mlp(sequence))  # (B, T, D)
        context = mean_of_steps(sequence, real) if self.c is None else self.c  # (B, D) or (D,)
        query = context @ self.p  # (B, m) or (m,)
        if query.dim() == 2:
            query = query.unsqueeze(1)
        heads = torch.tanh(query * (steps @ self.q))  # (B, T, m)
        return heads * torch.rsqrt(heads.square().sum(-1, keepdim=True) + _SMALLEST_SQUARE)

    def head_forms(self) -> Tensor:
        """The bilinear forms (m, D, D) of the heads, p_i q_i^T: c^T form u_t is what goes into the inner tanh."""
        return self.p.T.unsqueeze(2) * self.q.T.unsqueeze(1)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"LAMA, {self.heads} heads over {self.width} features, {self.context} context" + (
            ", MLP" if self.mlp is not None else ""
        )


def mean_of_steps(sequence: Tensor, real: Tensor | None) -> Tensor:
    """The mean (B, D) over the real steps of (B, T, D), whose padded ones hold zeros; zeros if none is real."""
    if real is None:
        return sequence.mean(1)
    count = real.sum(1, keepdim=True).clamp(min=1).to(sequence.dtype)  # (B, 1)
    return sequence.sum(1) / count


def without_padding(sequence: Tensor, real: Tensor | None) -> Tensor:
    """The sequence (B, T, D) with zeros in its padded steps, whatever they held."""
    return sequence if real is None else sequence.masked_fill(~real.unsqueeze(-1), 0.0)


def _as_mask(real: Tensor | None, sequence: Tensor) -> Tensor | None:
    """(B, T) bool of a mask or of lengths."""
    if real is None or real.dim() == 2:
        return real
    return torch.arange(sequence.size(1), device=sequence.device) < real.unsqueeze(1)
