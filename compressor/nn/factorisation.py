r"""Low rank of trained matrices: what is lost at every rank, and the two factors.

The best rank-r approximation of W (m, n) in the Frobenius and in the spectral norm keeps its r largest singular values
(Eckart and Young, 1936); the errors are :math:`\sqrt{\sum_{i > r} \sigma_i^2}` and :math:`\sigma_{r+1}`. If the
inputs x of the layer are known, what counts is the error of its *outputs*, :math:`\mathrm{E}|(W - W_r) x|^2`; with
:math:`C = \mathrm{E}[x x^T] = L L^T` it is :math:`\|(W - W_r) L\|_F^2`, so the singular values of W L decide.

Both are one formula. With :math:`W L = U \Sigma V^T` the optimum is :math:`W_r = U_r U_r^T W`: no inverse of L is
taken, so inputs that lie in a subspace do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from compressor.nn.least_squares import Moments

RIDGE = 1e-12
"""Part of the mean of C's diagonal that is added to it, so that of directions which the data never showed those that W
makes most of are kept first, and none at random. In float64 it is above the rounding of what the data did show."""
_ROUNDING = 1e-12
"""What an energy may miss by."""


@dataclass(frozen=True)
class Inputs:
    """What the data say about the inputs x (n,) of a matrix."""

    root: Tensor
    """L (n, n) with L L^T = C, float64."""
    mean: Tensor | None
    """The mean of x (n,) if C is taken around it, because the layer has a bias that can take up the rest."""

    @classmethod
    def of(cls, moments: Moments, *, centred: bool) -> Inputs:
        """From sums over samples; `centred` if the layer has a bias."""
        return cls(root(moments.second_moment(centred=centred)), moments.mean if centred else None)


def root(moment: Tensor, ridge: float = RIDGE) -> Tensor:
    """L with L L^T = C + ridge * mean(diag C) * I, for a symmetric C (n, n) without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0.0) + ridge * moment.diagonal().mean().clamp(min=torch.finfo(moment.dtype).tiny)
    scaled: Tensor = vectors * values.sqrt()
    return scaled


@dataclass(frozen=True)
class Factors:
    """W_r = up @ down."""

    up: Tensor
    """(m, r), float64."""
    down: Tensor
    """(r, n)"""
    shift: Tensor | None = None
    """(m,): what a bias has to take up, (W - W_r) E[x]; None if nothing is known of the inputs."""

    @property
    def rank(self) -> int:
        """The rank r."""
        return self.up.size(1)

    @property
    def product(self) -> Tensor:
        """W_r (m, n)."""
        return self.up @ self.down


class Spectrum:
    """A matrix W (m, n) cut down to its most important directions."""

    def __init__(self, weight: Tensor, inputs: Inputs | None = None) -> None:
        """Decompose.

        Args:
            weight: W (m, n).
            inputs: What is known of what W is applied to; nothing by default, which is plain SVD.
        """
        self.weight = weight.detach().double()
        self.inputs = inputs
        seen = self.weight if inputs is None else self.weight @ inputs.root
        self._left, self.values, _ = torch.linalg.svd(seen, full_matrices=False)

    @property
    def losses(self) -> Tensor:
        """Part of the energy that is lost at rank 0, 1, ..., min(m, n): from 1 down to 0."""
        return losses(self.values.square())

    def factors(self, rank: int) -> Factors:
        """The two factors of the best approximation at a rank of 1..min(m, n), balanced: down has the norms of up.

        Rows of `down` and columns of `up` of one index have the same norm, so that gradients of both are of one size.
        """
        left = self._left[:, :rank]  # (m, r)
        down = left.T @ self.weight  # (r, n)
        norms = down.norm(dim=1).sqrt()
        norms = norms.where(norms > 0, torch.ones_like(norms))
        factors = Factors(left * norms, down / norms[:, None])
        if self.inputs is None or self.inputs.mean is None:
            return factors
        return Factors(factors.up, factors.down, (self.weight - factors.product) @ self.inputs.mean)


def losses(energies: Tensor) -> Tensor:
    """Part of the sum that lies behind the first 0, 1, ..., k of the energies (k,), which fall: (k + 1,)."""
    tails = torch.cat([energies.flip(0).cumsum(0).flip(0), energies.new_zeros(1)])
    return tails / tails[0] if bool(tails[0] > 0) else torch.zeros_like(tails)


def rank_for_energy(lost: Tensor, energy: float) -> int:
    """The smallest rank >= 1 that keeps this part of the energy (0..1); `lost` as in `Spectrum.losses`."""
    enough = lost <= 1.0 - energy + _ROUNDING
    return max(1, int(enough.nonzero()[0]))


def largest_saving_rank(rows: int, columns: int) -> int:
    """The largest rank at which two factors have fewer parameters than the matrix: the largest r < m n / (m + n)."""
    return (rows * columns - 1) // (rows + columns)


class HeadPairs:
    r"""Two matrices per head that are only ever multiplied with each other, :math:`P_h = A_h^T B_h`, cut together.

    A_h and B_h are (d, p) and (d, q) and meet in the d features of head h: queries and keys, or values and outputs. At
    rank r there are :math:`G_h, F_h` (d, r) with :math:`P_h \approx A_h^T G_h F_h^T B_h`, so a head of r features does.

    With `joint` this is the best rank-r approximation of P_h: with thin QR :math:`A_h^T = Q_a R_a`, :math:`B_h^T = Q_b
    R_b` and :math:`R_a R_b^T = U \Sigma V^T`, it is :math:`G = R_b^T V_r \Sigma_r^{-1/2}`, :math:`F = R_a^T U_r
    \Sigma_r^{-1/2}`. Without, A_h and B_h are each cut down by their own SVD, with left vectors :math:`U_a` and
    :math:`U_b`, and what meets in the middle is multiplied out: :math:`G = U_a U_a^T U_b`, :math:`F = U_b`.
    """

    def __init__(self, left: Tensor, right: Tensor, *, joint: bool) -> None:
        """Decompose.

        Args:
            left: A (h, d, p).
            right: B (h, d, q).
            joint: Approximate the products, not the matrices.
        """
        self.width = left.size(1)
        self._joint = joint
        self._a = _triangle(left.double())  # (h, ., d), R_a
        self._b = _triangle(right.double())
        if joint:
            self._u, self._values, vh = torch.linalg.svd(self._a @ self._b.mT, full_matrices=False)
            self._v = vh.mT
        else:
            self._u = torch.linalg.svd(self._a.mT)[0]  # (h, d, d)
            self._v = torch.linalg.svd(self._b.mT)[0]

    @property
    def losses(self) -> Tensor:
        """Part of the energy of all products together that is lost at rank 0, 1, ..., d of every head: (d + 1,)."""
        if self._joint:
            energies = self._values.square().sum(0)  # (k,)
            return losses(nn.functional.pad(energies, (0, self.width - len(energies))))
        whole = self._a @ self._b.mT
        errors = [whole.square().sum()]
        for rank in range(1, self.width):
            middle, right = self.maps(rank)
            errors.append((whole - self._a @ middle @ right.mT @ self._b.mT).square().sum())
        lost = torch.stack([*errors, whole.new_zeros(())])
        return lost / lost[0] if bool(lost[0] > 0) else torch.zeros_like(lost)

    def maps(self, rank: int) -> tuple[Tensor, Tensor]:
        """G and F (h, d, r) at a rank of 1..d, float64."""
        if not self._joint:
            left, right = self._u[..., :rank], self._v[..., :rank]
            return left @ (left.mT @ right), right
        values = nn.functional.pad(self._values, (0, max(0, rank - self._values.size(1))))[:, :rank]
        floor = self._values[:, :1] * self.width * torch.finfo(values.dtype).eps
        scale = torch.where(values > floor, values, torch.inf).rsqrt()[:, None]  # (h, 1, r), 0 where there is nothing
        u, v = (nn.functional.pad(part[..., :rank], (0, max(0, rank - part.size(2)))) for part in (self._u, self._v))
        return self._b.mT @ v * scale, self._a.mT @ u * scale


def _triangle(matrices: Tensor) -> Tensor:
    """R of the thin QR of the transposed matrices (h, d, p): (h, min(p, d), d)."""
    triangle: Tensor = torch.linalg.qr(matrices.mT, mode="r")[1]
    return triangle
