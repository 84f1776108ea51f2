"""`nn.Linear` as two factors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from compressor.nn.record import LayerRecord, RecordedLayer, Size, allocate

if TYPE_CHECKING:
    from compressor.nn.factorisation import Factors
    from compressor.nn.factory import FactoryOptions


class LowRankLinearRecord(LayerRecord):
    """What a `LowRankLinear` is built from."""

    in_features: Size
    out_features: Size
    rank: Size
    bias: bool


class LowRankLinear(RecordedLayer):
    """`nn.Linear` as two, y = up(down(x)), with r features between them: r (m + n) weights instead of m n."""

    record_type: ClassVar[type[LayerRecord]] = LowRankLinearRecord

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Build both layers, with the initial weights of `nn.Linear`.

        Args:
            in_features: n.
            out_features: m.
            rank: r.
            bias: The second one has a bias.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.down = nn.Linear(in_features, rank, bias=False, **factory)
        self.up = nn.Linear(rank, out_features, bias=bias, **factory)

    @classmethod
    def from_linear(cls, linear: nn.Linear, factors: Factors) -> LowRankLinear:
        """Factors of a Linear layer, which is left as it is; its bias takes up the shift of the factors."""
        weight, bias = linear.weight, linear.bias
        module = cls(
            linear.in_features, linear.out_features, factors.rank, bias=bias is not None, device="meta",
            dtype=weight.dtype,
        )  # fmt: skip
        allocate(module, weight.device)
        module.set_factors(factors, bias)
        for parameter in module.parameters():
            parameter.requires_grad_(weight.requires_grad)
        return module.train(linear.training)

    def set_factors(self, factors: Factors, bias: Tensor | None) -> None:
        """Copy factors and the original's bias in."""
        with torch.no_grad():
            self.up.weight.copy_(factors.up)
            self.down.weight.copy_(factors.down)
            if bias is not None:
                shift = 0.0 if factors.shift is None else factors.shift.to(bias.device)
                self.up.bias.copy_(bias.double() + shift)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return LowRankLinearRecord(
            in_features=self.in_features, out_features=self.out_features, rank=self.rank, bias=self.bias is not None
        ).model_dump()

    @property
    def in_features(self) -> int:
        """N."""
        return self.down.in_features

    @property
    def out_features(self) -> int:
        """M."""
        return self.up.out_features

    @property
    def rank(self) -> int:
        """R."""
        return self.down.out_features

    @property
    def bias(self) -> Tensor | None:
        """(m,), or None."""
        return self.up.bias

    @property
    def weight(self) -> Tensor:
        """The matrix that the factors stand for (m, n), multiplied out anew each time."""
        return self.up.weight @ self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., m)."""
        y: Tensor = self.up(self.down(x))
        return y

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, bias={self.bias is not None}"
