"""The text-line reader: splits, rendering, decoding; with the fetched data, its error rate too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFont

from compressor.task.loading import load
from tests.samples.fetching import check_missing

FOLDER = Path(__file__).parents[2] / "samples" / "text_line_reader"
sys.path.insert(0, str(FOLDER))

import lines  # noqa: E402

needs_data = pytest.mark.skipif(
    not all((lines.CACHE / name).exists() for name in (lines.WEIGHTS, *lines.PACKAGES)),
    reason="run samples/text_line_reader/fetch.py first",
)


def module_of(task):
    return sys.modules[type(task.task).__module__]


def blank_line(width, text="a"):
    return lines.Line(text, np.zeros((32, width), dtype=np.uint8), "none")


# --- data ------------------------------------------------------------------------------------------------------------


def test_no_font_is_both_learnt_and_scored_and_no_word_is_in_two_parts():
    parts = (lines.SCORED, lines.VALIDATED, lines.LEARNT)
    residues = [place for part in parts for place in part.residue]
    assert not set(lines.SCORED.fonts) & {*lines.VALIDATED.fonts, *lines.LEARNT.fonts}
    assert sorted(residues) == list(range(10))


def test_every_font_comes_from_a_package_that_is_fetched():
    fonts = {*lines.SCORED.fonts, *lines.VALIDATED.fonts, *lines.LEARNT.fonts}
    assert {font.split("/")[0] for font in fonts} == {p for p in lines.PACKAGES if p.startswith("fonts-")}


def test_written_text_holds_two_to_five_words_of_the_list():
    words = ["ave", "boi"]
    for seed in range(23):
        written = lines.write(words, np.random.default_rng(seed)).split()
        bare = [item.strip(",.;:!").lower() for item in written if not item.isdigit()]
        assert 2 <= len(bare) <= 5
        assert set(bare) <= set(words)


def test_rendered_line_is_32_high_with_dark_ink_inside_light_paper():
    font = ImageFont.load_default(size=29)
    pixels = lines.render("Olá, boi", font, np.random.default_rng(0))
    assert pixels.shape[0] == 32
    assert pixels.shape[1] > 64
    assert pixels[0].min() > 150  # the margin
    assert pixels[8:24].min() < 110  # the ink


def test_a_longer_text_makes_a_wider_line_up_to_the_widest():
    font = ImageFont.load_default(size=29)
    widths = [lines.render("n" * n, font, np.random.default_rng(0)).shape[1] for n in (5, 11, 211)]
    assert widths[0] < widths[1] < widths[2] == 1280


def test_narrow_images_are_filled_with_white():
    images = lines.stack([blank_line(11), blank_line(17)])
    assert images.shape == (2, 1, 32, 17)
    assert bool((images[0, :, :, :11] == -1.0).all())
    assert bool((images[0, :, :, 11:] == 1.0).all())


# --- task ------------------------------------------------------------------------------------------------------------


def test_repeated_classes_are_read_once_and_a_blank_parts_them(monkeypatch):
    module = module_of(load(str(FOLDER / "task.py")))
    monkeypatch.setattr(module, "charset", lambda: "ab")
    steps = torch.tensor([[0, 1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0, 0]])
    one_hot = torch.nn.functional.one_hot(steps, 3).float()
    assert module.decode(lambda _images: one_hot, [blank_line(28), blank_line(28)]) == ["aab", ""]


@pytest.mark.parametrize("width", [8, 9, 10, 11, 29])
def test_there_is_a_step_for_every_four_columns_begun(width):
    reader = module_of(load(str(FOLDER / "task.py"))).Reader().eval()
    with torch.no_grad():
        assert reader(torch.zeros(3, 1, 32, width)).shape == (3, (width + 3) // 4, 122)


def test_the_loss_of_logits_that_spell_the_text_is_near_zero():
    task = load(str(FOLDER / "task.py"))
    logits = torch.full((1, 5, 122), -20.0)
    logits[0, range(5), [0, 7, 0, 7, 3]] = 20.0
    target = (torch.tensor([7, 7, 3]), torch.tensor([3]))
    assert float(task.loss(logits, target)) == pytest.approx(0.0, abs=1e-4)
    assert float(task.loss(logits.flip(1), target)) > 1.0


def test_task_without_fetched_data_says_how_to_fetch_it(monkeypatch, tmp_path):
    check_missing(monkeypatch, lines, tmp_path, "text_line_reader", load(str(FOLDER / "task.py")).model, "model.pt")


@needs_data
def test_original_model_reads_fresh_lines_nearly_without_error():
    task = load(str(FOLDER / "task.py"))
    few = lines.Part(lines.SCORED.fonts, lines.SCORED.residue, seed=7, count=31)
    with torch.no_grad():
        evaluation = module_of(task).score(task.model(), few)
    assert float(evaluation.per_sample.mean()) < 0.02


@needs_data
def test_batches_hold_each_learnt_line_once_with_its_text(monkeypatch):
    task = load(str(FOLDER / "task.py"))
    few = lines.Part(lines.LEARNT.fonts, lines.LEARNT.residue, seed=7, count=37)
    monkeypatch.setattr(module_of(task), "LEARNT", few)
    texts = []
    for (_images,), (classes, lengths) in task.batches(torch.Generator().manual_seed(0)):
        spelt = iter(lines.charset()[index - 1] for index in classes.tolist())
        texts += ["".join(next(spelt) for _ in range(n)) for n in lengths.tolist()]
    assert sorted(texts) == sorted(line.text for line in lines.lines(few))
