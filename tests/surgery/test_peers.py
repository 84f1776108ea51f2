"""Dead features leave the models of other tools' tests without a trace."""

import copy

import numpy as np
import pytest
import torch

from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from tests.surgery.peers import PEERS, output_axis
from tests.surgery.rebuilding import rebuilt_from


def living(peer):
    """A score that is 0 for the dead features of the targets."""

    def score(model, trace):
        scores = np.ones(trace.atoms.count)
        for name in peer.targets:
            ids = trace.atoms.axes[f"{name}.weight", output_axis(model.get_submodule(name))]
            scores[trace.atoms.roots(ids[list(peer.dead[name])])] = 0
        return scores

    return score


@pytest.mark.filterwarnings("ignore:input's size at dim=1 does not match num_features")
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_dead_features_leave_without_a_trace(peer):
    model = peer.build()
    before = copy.deepcopy(model)
    examples = [peer.example(2), peer.example(3, 1)]
    done = prune(model, {}, examples, names=peer.targets, amount=Amount(below=0.5), scorer=living(peer))
    for name in peer.targets:
        old, new = model.get_submodule(name), done.model.get_submodule(name)
        lost = len(peer.dead[name]) * (old.groups if output_axis(old) and old.groups > 1 else 1)
        assert _outputs(new) == _outputs(old) - lost, name
    rebuilt = rebuilt_from(done, copy.deepcopy(before))
    x = peer.example(5, 2)
    with torch.no_grad():
        expected = before(*x)
        torch.testing.assert_close(done.model(*x), expected, atol=1e-9, rtol=0)
        assert torch.equal(rebuilt.eval()(*x), done.model(*x))


def _outputs(module):
    return module.out_features if isinstance(module, torch.nn.Linear) else module.out_channels
