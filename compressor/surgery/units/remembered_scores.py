"""Scores of units that were measured before, for a search whose recipes all begin with one model.

What a unit is worth depends on the model, on data and on random numbers, not on how many units go: so a score by
gradients, which costs more than the removal itself, is the same for every ratio.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.surgery.trace.atoms import Atoms
    from compressor.surgery.trace.state import Trace
    from compressor.surgery.units.choice import Scores
    from compressor.surgery.units.planning import Scorer


@dataclass
class RememberedScores:
    """Scores by the weights, the groups of units, and the state of the generator before them."""

    _known: dict[bytes, tuple[Scores, Tensor]] = field(default_factory=dict)

    def around(self, scorer: Scorer, generator: torch.Generator, settings: tuple[object, ...]) -> Scorer:
        """The same scorer, which is asked once for each model.

        Args:
            scorer: May draw from `generator`, which is left where the scorer would leave it.
            generator: Its own.
            settings: All else that its scores depend on.
        """

        def score(model: nn.Module, trace: Trace) -> Scores:
            key = _key(model, trace.atoms, generator, settings)
            if key not in self._known:
                scores = scorer(model, trace)
                self._known[key] = scores, generator.get_state()
            scores, after = self._known[key]
            generator.set_state(after)
            return scores.copy()

        return score


def _key(model: nn.Module, atoms: Atoms, generator: torch.Generator, settings: tuple[object, ...]) -> bytes:
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for name, item in model.state_dict().items():
        digest.update(repr((name, item.dtype, tuple(item.shape))).encode())
        digest.update(item.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for key, ids in atoms.axes.items():
        digest.update(repr((key, atoms.roles[key])).encode())
        digest.update(ids.tobytes())
    digest.update(atoms.roots(np.arange(atoms.count)).tobytes())
    digest.update(generator.get_state().numpy().data)
    return digest.digest()
