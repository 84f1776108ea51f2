"""Which earlier step replaced layers, for errors of steps that would have worked before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 3


def replaced_layers(model: nn.Module) -> dict[str, list[str]]:
    """Recipe word of a method -> the layers of the model that it put in the place of others."""
    from compressor.nn.attention.aaren import AarenAttention
    from compressor.nn.attention.learned_query import LearnedQuery
    from compressor.nn.attention.pooling import PoolingReplacement
    from compressor.nn.factored_linear import LowRankLinear
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.stack import RecurrentStack

    makers: dict[str, tuple[type[nn.Module], ...]] = {
        "aaren": (AarenAttention, LearnedQuery),
        "lama": (PoolingReplacement,),
        "low_rank_attention": (LowRankLinear, LowRankRecurrent),
        "random_graph": (RecurrentStack,),
    }
    replaced: dict[str, list[str]] = {}
    for name, module in model.named_modules():
        for word, kinds in makers.items():
            inside = any(name.startswith(f"{other}.") for others in replaced.values() for other in others)
            if isinstance(module, kinds) and not inside:
                replaced.setdefault(word, []).append(name)
    return replaced


def order_hint(model: nn.Module, method: str) -> str | None:
    """What to do about a step that finds nothing any more because of earlier ones; None if none replaced a layer."""
    parts = []
    for word, names in replaced_layers(model).items():
        listed = ", ".join(f"`{name}`" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        if word == method:
            parts.append(f"an earlier `{word}` replaced {listed} already: take one of the two steps out")
        else:
            parts.append(f"`{word}` replaced {listed} before this step: put `{method}` in front of `{word}`")
    return "; ".join(parts) or None
