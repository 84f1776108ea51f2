"""The weights and the record in a run folder."""

import pytest
from torch import nn

from compressor.checkpoint import save
from compressor.errors import OutputError
from compressor.files import write_whole


def test_tied_weights_are_saved_once(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save(tmp_path, net, [])
    assert '"1.weight": "0.weight"' in (tmp_path / "model.json").read_text()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("older")
    with pytest.raises(OutputError, match=r"cannot write .*missing/kept: No such file or directory"):
        write_whole(tmp_path / "missing" / "kept", b"newer")
    write_whole(tmp_path / "kept", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"newer"
