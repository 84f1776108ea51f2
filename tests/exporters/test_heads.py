"""Attention with fewer heads is exported and agrees with PyTorch at sizes never seen."""

from __future__ import annotations

import pytest
import torch

from compressor.formats import Job
from compressor.measure.macs import survey
from compressor.surgery.attention import head_scores
from compressor.surgery.attention.head_removal import prune
from compressor.surgery.attention.sites import attention_sites
from compressor.surgery.units.choice import Amount
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.surgery.attentions import WIDTH, Decoder, Encoder, Nested, Packed, Stack, declared, randomized

CASES = {
    "encoder": (Encoder, {}),
    "decoder": (Decoder, {}),
    "declared": (lambda: Stack(Nested), declared(Nested)),
    "declared, packed": (lambda: Stack(Packed), declared(Packed)),
}


def _example(batch, length):
    return torch.randn(batch, length, WIDTH), torch.arange(length) < random_lengths(batch, length)[:, None]


def _task():
    axes = {0: "batch", 1: "time"}
    return RandomTask({"features": axes, "mask": axes}, {"scores": axes}, _example)


def _fewer(model, parts):
    names = [site.name for site in attention_sites(model, parts).attentions]
    return prune(model, {}, [_example(3, 7)], names=names, declared=parts, amount=Amount(count=3),
                 scorer=head_scores.weight()).model  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_fewer_heads_are_exported_and_agree_at_unseen_sizes(tmp_path, name):
    build, parts = CASES[name]
    torch.manual_seed(0)
    smaller, path = _fewer(randomized(build()), parts), tmp_path / "model.onnx"
    assert export(Job(smaller, _task(), path, Options())).parity.passed
    inputs = _example(7, 23)
    assert_agrees(path, smaller, *inputs)


def test_the_file_is_smaller_and_has_less_to_compute_by_three_quarters_of_the_attention(tmp_path):
    torch.manual_seed(0)
    model = randomized(Stack(Packed))
    totals, length = [], 23
    for index, each in enumerate((model, _fewer(model, declared(Packed)))):
        path = tmp_path / f"{index}.onnx"
        export(Job(each, _task(), path, Options()))
        totals.append((survey(path, _example(1, length)).total, path.stat().st_size))
    lost = 2 * (length * 4 * WIDTH * 9 + 2 * length * length * 9)  # projections, and scores with their sums
    assert totals[0][0] - totals[1][0] == lost
    assert totals[0][1] - totals[1][1] > 4 * 2 * 4 * WIDTH * 9 * 0.9
