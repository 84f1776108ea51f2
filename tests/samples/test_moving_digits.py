"""Clips of moving digits: where a digit is, what a class means, and what single frames cannot tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from compressor.errors import TaskError
from compressor.task.loading import load

FOLDER = Path(__file__).parents[2] / "samples" / "moving_digits"
sys.path.insert(0, str(FOLDER))

import clips  # noqa: E402

needs_data = pytest.mark.skipif(
    not (clips.CACHE / clips.TABLE).exists(), reason="run samples/moving_digits/fetch.py first"
)
MAX_CHECKPOINT_BYTES = 340_000


def made_up(count):
    """Squares of one pixel at the top left of an empty digit."""
    digits = torch.zeros(count, clips.DIGIT, clips.DIGIT)
    digits[:, 0, 0] = 1.0
    return digits


def test_a_digit_moves_in_the_direction_of_its_class_and_comes_back_on_the_other_side():
    frames, classes = clips.clips(made_up(200), torch.Generator().manual_seed(0), frames=20)
    assert frames.shape == (200, 20, 1, clips.SIDE, clips.SIDE)
    assert (frames.flatten(2).sum(-1) == 1).all()
    places = frames.flatten(2).argmax(-1)  # (N, T)
    rows, columns = places // clips.SIDE, places % clips.SIDE
    for which, direction in enumerate(classes.tolist()):
        down, right = clips.DIRECTIONS[direction]
        assert ((rows[which].diff() - down * clips.SPEED) % clips.SIDE == 0).all()
        assert ((columns[which].diff() - right * clips.SPEED) % clips.SIDE == 0).all()
    assert set(classes.tolist()) == set(range(clips.CLASSES))


def test_a_single_frame_tells_nothing_of_the_direction_and_the_reader_sees_the_past_only():
    frames = torch.rand(2, 6, 1, clips.SIDE, clips.SIDE)
    changed = frames.clone()
    changed[:, 3] += 1.0
    torch.manual_seed(0)
    with torch.no_grad():
        for net, told in ((clips.FrameReader().eval(), {3, 4, 5}), (clips.SingleFrames().eval(), {3})):
            differs = (net(frames) - net(changed)).abs().amax((0, 2)) > 1e-6
            assert set(differs.nonzero()[:, 0].tolist()) == told


def test_missing_digits_are_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(clips, "CACHE", tmp_path)
    with pytest.raises(TaskError, match="the digits are not here") as caught:
        clips.parts.__wrapped__()
    assert "python samples/moving_digits/fetch.py" in caught.value.hint


def test_the_checkpoint_fits_the_network_and_is_small():
    task = load(str(FOLDER / "task.py"))
    assert (FOLDER / "reader.safetensors").stat().st_size < MAX_CHECKPOINT_BYTES
    with torch.no_grad():
        assert task.model().eval()(*task.example(2, 3)).shape == (2, 3, clips.CLASSES)


@needs_data
def test_the_checkpoint_knows_the_direction():
    task = load(str(FOLDER / "task.py"))
    with torch.no_grad():
        assert float(task.evaluate(task.model().eval()).mean()) == pytest.approx(1.0, abs=0.003)


@needs_data
def test_no_digit_is_in_two_parts():
    every = clips.parts()
    assert [len(part) for part in (every.learnt, every.validated, every.scored)] == [3500, 500, 1000]
    seen = [{tuple(pixels.flatten().tolist()) for pixels in part} for part in (every.learnt, every.scored)]
    assert not seen[0] & seen[1]
