"""What this package's multi-head attention layers share: four projections, and calls as of `nn.MultiheadAttention`."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NoReturn, Required, Unpack

from pydantic import Field, model_validator
from torch import Tensor, nn

from compressor.nn.factory import FactoryOptions, factory_options
from compressor.nn.record import LayerRecord, RecordedLayer, Size


class HeadsRecord(LayerRecord):
    """The sizes that every record of multi-head attention has."""

    num_heads: Size
    head_width: Size
    value_head_width: Size
    scale: float = Field(gt=0.0, allow_inf_nan=False)
    bias: bool
    batch_first: bool

    @model_validator(mode="after")
    def _inner_widths_are_sizes(self) -> HeadsRecord:
        if self.num_heads * max(self.head_width, self.value_head_width) >= 1 << 24:
            raise ValueError("the heads are too wide together")
        return self


class MultiheadRecord(HeadsRecord):
    """The sizes of the four projections too."""

    query_width: Size
    output_width: Size


class NoFusedKernel:
    """Replaces the packed weight of `nn.MultiheadAttention`, and turns the fused kernel off.

    `nn.TransformerEncoder` decides at construction whether it feeds nested tensors to a fused kernel. When it runs, it
    refrains only if one of the first layer's weights overrides torch's functions, as this object says of itself.
    """

    requires_grad = False

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise TypeError("this attention has no in_proj_weight; use q_proj, k_proj and v_proj")


class MultiheadOptions(FactoryOptions, total=False):
    """Arguments that every `MultiheadLayer` is built from."""

    query_width: Required[int]
    """E_q."""
    head_width: Required[int]
    """d."""
    value_head_width: Required[int]
    """d_v."""
    output_width: Required[int]
    """E_o."""
    scale: float | None
    r"""s; :math:`1/\sqrt{d}` by default."""
    bias: bool
    """Each of the four layers has a bias; the default."""
    batch_first: bool
    """Batches are (B, T, E) instead of (T, B, E), which is the default."""


class MultiheadLayer(RecordedLayer):
    """Base of layers with `q_proj`, `k_proj`, `v_proj` and `out_proj`, called as `nn.MultiheadAttention` is.

    `num_heads` is an attribute that whoever removes whole heads has to set; all widths are read off the four layers.
    """

    _qkv_same_embed_dim = False
    """With `in_proj_bias`, keeps `nn.TransformerEncoderLayer` from its fused kernel."""
    in_proj_weight: ClassVar[Any] = NoFusedKernel()
    in_proj_bias = None

    def _add_projections(
        self, num_heads: int, key_width: int, value_width: int, **options: Unpack[MultiheadOptions]
    ) -> None:
        """Build the four layers, with the initial weights of `nn.Linear`.

        Args:
            num_heads: h.
            key_width: E_k.
            value_width: E_v.
            **options: See `MultiheadOptions`.
        """
        widths, scale = num_heads * options["head_width"], options.get("scale")
        value_widths, bias = num_heads * options["value_head_width"], options.get("bias", True)
        self.num_heads = num_heads
        self.scale = 1.0 / math.sqrt(options["head_width"]) if scale is None else scale
        self.batch_first = options.get("batch_first", False)
        factory = factory_options(options)
        self.q_proj = nn.Linear(options["query_width"], widths, bias, **factory)
        self.k_proj = nn.Linear(key_width, widths, bias, **factory)
        self.v_proj = nn.Linear(value_width, value_widths, bias, **factory)
        self.out_proj = nn.Linear(value_widths, options["output_width"], bias, **factory)

    @property
    def head_dim(self) -> int:
        """d, the features of a query or key in one head."""
        return self.q_proj.out_features // self.num_heads

    @property
    def value_head_dim(self) -> int:
        """d_v, the features of a value in one head."""
        return self.v_proj.out_features // self.num_heads

    def heads_record(self) -> dict[str, Any]:
        """The fields of `MultiheadRecord`; also the arguments of `__init__` that all these layers have."""
        return {
            "num_heads": self.num_heads,
            "query_width": self.q_proj.in_features,
            "head_width": self.head_dim,
            "value_head_width": self.value_head_dim,
            "output_width": self.out_proj.out_features,
            "scale": self.scale,
            "bias": self.q_proj.bias is not None,
            "batch_first": self.batch_first,
        }

    def _batch_first(self, *sequences: Tensor) -> tuple[Tensor, ...]:
        """(B, T, E) of sequences as the caller gives them: (T, B, E), (B, T, E) with `batch_first`, or (T, E)."""
        if sequences[0].dim() == 2:
            return tuple(part.unsqueeze(0) for part in sequences)
        return sequences if self.batch_first else tuple(part.transpose(0, 1) for part in sequences)

    def _as_called(self, output: Tensor, *, batched: bool) -> Tensor:
        """An output (B, T, E) in the order of axes that the caller uses."""
        if not batched:
            return output.squeeze(0)
        return output if self.batch_first else output.transpose(0, 1)

    def _split_heads(self, projected: Tensor) -> Tensor:
        """(B, T, h * d) -> (B, h, T, d)."""
        heads: Tensor = projected.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(1, 2)

    def _output(self, context: Tensor) -> Tensor:
        """(B, h, T, d_v) -> (B, T, E_o)."""
        output: Tensor = self.out_proj(context.transpose(1, 2).flatten(2))
        return output

    def _structure(self, flags: str) -> str:
        """The structure in one line."""
        return f"{self.num_heads} heads of {self.head_dim}, {self.value_head_dim} for values, {flags}"


def refuse_nested(*sequences: Tensor) -> None:
    """Raise `RuntimeError` on nested tensors, which PyTorch's fused kernels would be given."""
    if any(part.is_nested for part in sequences):
        raise RuntimeError("nested tensors are not supported; pass a padded batch and key_padding_mask")
