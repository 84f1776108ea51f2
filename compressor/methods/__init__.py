"""The recipe words: `METHODS` maps each to its options model. Importing this package does not import torch."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from compressor.methods.aaren import Aaren
from compressor.methods.automaton import Automaton
from compressor.methods.convert import Convert
from compressor.methods.depth_search import DepthSearch
from compressor.methods.heads import Heads
from compressor.methods.lama import Lama
from compressor.methods.lattice import Lattice
from compressor.methods.low_rank_attention import LowRankAttention
from compressor.methods.magnitude import Magnitude
from compressor.methods.random_graph import RandomGraph
from compressor.methods.retrain import Retrain
from compressor.methods.sparsify import Sparsify
from compressor.methods.tie_layers import TieLayers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from compressor.methods.base import Method

METHODS: Mapping[str, type[Method]] = MappingProxyType(
    {
        "magnitude": Magnitude,
        "sparsify": Sparsify,
        "lattice": Lattice,
        "random_graph": RandomGraph,
        "heads": Heads,
        "low_rank_attention": LowRankAttention,
        "lama": Lama,
        "aaren": Aaren,
        "depth_search": DepthSearch,
        "tie_layers": TieLayers,
        "automaton": Automaton,
        "convert": Convert,
        "retrain": Retrain,
    }
)
"""Recipe word -> method, in the order in which they are listed."""

__all__ = ["METHODS"]
