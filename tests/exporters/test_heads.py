"""Attention with fewer heads is exported and agrees with PyTorch at sizes never seen."""

from __future__ import annotations

import pytest
import torch

from compressor.measure.macs import survey
from compressor.measure.runtime import OnnxFile
from compressor.surgery import head_scores
from compressor.surgery.attention_sites import attention_sites
from compressor.surgery.choice import Amount
from compressor.surgery.heads import prune
from exporters.onnx import Options, export
from tests.exporters.conftest import ShapedTask, lengths_for
from tests.surgery.attentions import WIDTH, Decoder, Encoder, Nested, Packed, Stack, declared, randomized
from tests.tolerances import EXPORTED_FLOAT32

CASES = {
    "encoder": (Encoder, {}),
    "decoder": (Decoder, {}),
    "declared": (lambda: Stack(Nested), declared(Nested)),
    "declared, packed": (lambda: Stack(Packed), declared(Packed)),
}


def _example(batch, length):
    return torch.randn(batch, length, WIDTH), torch.arange(length) < lengths_for(batch, length)[:, None]


@pytest.mark.parametrize("name", CASES)
def test_fewer_heads_are_exported_smaller_with_less_to_compute_and_agree_at_unseen_sizes(tmp_path, name):
    build, parts = CASES[name]
    task = ShapedTask(
        {"features": {0: "batch", 1: "time"}, "mask": {0: "batch", 1: "time"}},
        {"scores": {0: "batch", 1: "time"}},
        _example,
    )
    torch.manual_seed(0)
    model = randomized(build())
    names = [site.name for site in attention_sites(model, parts).found]
    smaller = prune(model, {}, [_example(3, 7)], names=names, declared=parts, amount=Amount(count=3),
                    scorer=head_scores.weight()).model  # fmt: skip
    paths = [tmp_path / "before.onnx", tmp_path / "after.onnx"]
    for each, path in zip((model, smaller), paths, strict=True):
        assert export(each, task, path, Options()).parity.passed
    inputs = task.example(7, 23)
    with torch.no_grad():
        torch.testing.assert_close(OnnxFile(paths[1])(*inputs), smaller(*inputs), **EXPORTED_FLOAT32)
    before, after = (survey(path, inputs).total for path in paths)
    assert after < before
    assert paths[1].stat().st_size < paths[0].stat().st_size
