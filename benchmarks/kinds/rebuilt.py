"""Kinds that are written out here or in the tests: recurrent topologies, convolutions, speech and time series."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.kinds.kind import Kind, channels, features

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.surgery.peers import PEERS
from tests.surgery.speech import WIDTH, Automatic, Block, Both, Causal, Conformer, Gated, Masked, RowMasked, Swapped
from tests.surgery.strangers import STRANGERS
from tests.surgery.topologies import INPUT, SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Callable


def _lengths(batch: int, length: int) -> tuple[Tensor, ...]:
    lengths = torch.randint(1, length + 1, (batch,)).index_fill(0, torch.tensor([0]), length)
    return torch.randn(batch, length, INPUT), lengths


def _float(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: build().float()


def _peer(peer: Any) -> Kind:
    def example(batch: int, length: int) -> tuple[Tensor, ...]:
        return tuple(part.float() if part.is_floating_point() else part for part in peer.example(batch, batch))

    return Kind(peer.name, _float(peer.build), example, length=1, max_length=1)


SPEECH = [
    Kind("TCN: causal dilated convolutions", lambda: Swapped(nn.Sequential(
        Causal(5, WIDTH), nn.ReLU(), Block(nn.Sequential(Causal(WIDTH, WIDTH, 2), nn.ReLU())), nn.Conv1d(WIDTH, 3, 1)
    )), features(5), causal=True),
    Kind("WaveNet", lambda: nn.Sequential(
        nn.Conv1d(5, WIDTH, 1), Gated(WIDTH, 1), Gated(WIDTH, 2), nn.ReLU(), nn.Conv1d(WIDTH, 3, 1)), channels(5)),
    Kind("QuartzNet: separable convolutions", lambda: nn.Sequential(
        nn.Conv1d(5, WIDTH, 3, padding=1), nn.BatchNorm1d(WIDTH), nn.ReLU(),
        Block(nn.Sequential(nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH), nn.Conv1d(WIDTH, WIDTH, 1),
              nn.BatchNorm1d(WIDTH))), nn.ReLU(), nn.Conv1d(WIDTH, 3, 1)), channels(5)),
    Kind("keyword spotting CNN with group normalisation", lambda: nn.Sequential(
        nn.Conv1d(5, WIDTH, 3, padding=1), nn.GroupNorm(4, WIDTH), nn.PReLU(WIDTH), nn.Conv1d(WIDTH, 3, 1)),
        channels(5)),
    Kind("Conformer", Conformer, features(5)),
    Kind("TransformerEncoder(mask=causal, is_causal=True)", lambda: Masked(hint=True), features(5), causal=True),
    Kind("TransformerEncoder(mask=causal)", lambda: Masked(hint=False), features(5), causal=True),
    Kind("Transformer(tgt_mask=causal)", Both, features(5)),
    Kind("attention with a row that is masked whole", RowMasked, features(5), min_length=2),
    Kind("autocast in forward", Automatic, features(5)),
]  # fmt: skip
STYLES = [Kind(f"style: {kind.__name__}", kind, example) for kind, example in STRANGERS.items()]
KINDS = [
    *(Kind(topology.__name__, lambda t=topology: t(nn.LSTM), _lengths, causal=True) for topology in SUPPORTED),
    *map(_peer, PEERS),
    *SPEECH,
    *STYLES,
]
