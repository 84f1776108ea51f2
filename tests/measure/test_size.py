import gzip

import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.measure import size


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 5)
        self.decoder = nn.Linear(5, 7)
        self.decoder.weight = self.embedding.weight


def test_parameters_and_nonzeros_are_exact():
    model = nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.fill_(1.0)
        model.weight[0, :2] = 0.0
        model.bias.zero_()
    assert size.count(model) == (18, 13)


def test_a_shared_parameter_counts_once():
    assert size.count(Tied())[0] == 7 * 5 + 7
    assert [layer.name for layer in size.layers(Tied())] == ["embedding.weight", "decoder.bias"]


def test_buffers_are_not_parameters():
    assert size.count(nn.BatchNorm1d(11))[0] == 22


def test_a_layer_tells_its_sparsity():
    model = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 2.0]]))
    (layer,) = size.layers(model)
    assert (layer.shape, layer.parameters, layer.nonzeros, layer.sparsity) == ((1, 4), 4, 1, 0.75)


def test_file_sizes_are_of_the_bytes(tmp_path):
    path = tmp_path / "weights.bin"
    content = bytes(range(256)) * 4001
    path.write_bytes(content)
    assert size.file_bytes(path) == len(content)
    assert size.gzip_bytes(path) == len(gzip.compress(content, 9, mtime=0))


def test_gzip_size_does_not_hang_on_the_files_name(tmp_path):
    for name in ("a", "a-much-longer-name"):
        (tmp_path / name).write_bytes(b"same bytes" * 101)
    assert size.gzip_bytes(tmp_path / "a") == size.gzip_bytes(tmp_path / "a-much-longer-name")


@pytest.mark.parametrize("measure", [size.file_bytes, size.gzip_bytes])
def test_a_missing_file_is_named(tmp_path, measure):
    with pytest.raises(ExportError, match=r"gone\.onnx cannot be read: No such file"):
        measure(tmp_path / "gone.onnx")
