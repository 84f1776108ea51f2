"""The weights and the record in a run folder."""

from torch import nn

from compressor.checkpoint import save


def test_tied_weights_are_saved_once(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save(tmp_path, net, [])
    assert '"1.weight": "0.weight"' in (tmp_path / "model.json").read_text()
