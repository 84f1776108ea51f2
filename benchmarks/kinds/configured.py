"""Classes of the package `transformers` with tiny configurations and random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers as hf

from benchmarks.kinds.kind import Example, Kind, tokens
from compressor.task.signature import Call

if TYPE_CHECKING:
    from torch import nn

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
BOTH_SIDES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "use_cache": False,
}


def configured(
    model: str,
    config: str,
    example: Example | None = None,
    *,
    name: str = "",
    causal: bool = False,
    times: tuple[int, int, int] = (7, 1, 12),
    **options: Any,
) -> Kind:
    """One class.

    Args:
        model: Its name, which is the kind's as well unless there is a `name`.
        config: The name of the class of its configuration.
        example: (batch, length) -> arguments of `forward`; tokens if there is none.
        name: Of the kind.
        causal: May run as a step.
        times: A length, the smallest and the largest one.
        **options: Of the configuration.
    """

    def build() -> nn.Module:
        return getattr(hf, model)(getattr(hf, config)(**options))

    length, smallest, largest = times
    return Kind(name or model, build, example or tokens(), length, smallest, largest, causal)


def pairs(batch: int, length: int) -> Call:
    """Tokens for an encoder and for its decoder."""
    ids = torch.randint(3, 50, (batch, length))
    return Call(input_ids=ids, decoder_input_ids=ids.clone())
