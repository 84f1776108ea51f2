"""The pictures read row by row: parts, order of the rows, network; with the fetched data, the checkpoints' accuracy."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import TaskError
from compressor.task.loading import load
from tests.samples.fetching import check_missing

FOLDER = Path(__file__).parents[2] / "samples" / "row_digits"
sys.path.insert(0, str(FOLDER))

import pictures  # noqa: E402

needs_data = pytest.mark.skipif(
    not all((pictures.CACHE / name).exists() for name in (pictures.FASHION, pictures.MNIST, pictures.DIGITS)),
    reason="run samples/row_digits/fetch.py first",
)
FILES = ["fashion.safetensors", "mnist.safetensors", "digits.safetensors"]
MAX_CHECKPOINT_BYTES = 340_000


def task_of(name):
    return load(f"{FOLDER / 'task.py'}:{name}")


def made_up(count):
    """Pictures told apart by their first two pixels."""
    pixels = torch.zeros(count, 28, 28, dtype=torch.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = torch.arange(count) % 251, torch.arange(count) // 251
    return pictures.Pictures(pixels, torch.arange(count) % 10)


def first_pixels(part):
    return {(int(picture[0, 0]), int(picture[0, 1])) for picture in part.pixels}


# --- data ------------------------------------------------------------------------------------------------------------


def test_an_idx_file_is_read_with_its_last_axis_fastest(tmp_path):
    values = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    header = bytes((0, 0, 8, 3)) + b"".join(length.to_bytes(4) for length in values.shape)
    (tmp_path / "pictures.gz").write_bytes(gzip.compress(header + values.tobytes()))
    (tmp_path / "pictures").write_bytes(header + values.tobytes())
    for name in ("pictures.gz", "pictures"):
        assert np.array_equal(pictures.read_idx(tmp_path / name).numpy(), values)


@pytest.mark.parametrize("content", [bytes((0, 0, 13, 1, 0, 0, 0, 3, 1, 2, 3)), bytes((0, 0, 8, 1, 0, 0, 0, 3, 1, 2))])
def test_an_idx_file_of_another_type_or_cut_short_is_refused(tmp_path, content):
    (tmp_path / "pictures.gz").write_bytes(gzip.compress(content))
    with pytest.raises(TaskError, match=r"pictures\.gz is no IDX file of unsigned bytes"):
        pictures.read_idx(tmp_path / "pictures.gz")


def test_drawn_pictures_are_not_among_the_others_keep_their_class_and_are_always_the_same():
    everything = made_up(997)
    others, chosen = pictures.drawn(everything, 101)
    again = pictures.drawn(everything, 101)[1]
    assert (len(others), len(chosen)) == (896, 101)
    assert first_pixels(others) | first_pixels(chosen) == first_pixels(everything)
    assert torch.equal(chosen.pixels, again.pixels)
    numbers = chosen.pixels[:, 0, 0].long() + 251 * chosen.pixels[:, 0, 1].long()
    assert torch.equal(chosen.classes, numbers % 10)


def test_a_table_of_digits_becomes_pictures_whose_rows_lie_one_after_the_other(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "CACHE", tmp_path)
    monkeypatch.setattr(pictures, "digits", pictures.digits.__wrapped__)
    table = np.zeros((1511, 785), dtype=np.uint8)
    table[:, 28 * 3 + 5] = 7  # row 3, pixel 5
    table[:, -1] = 9
    np.savetxt(tmp_path / pictures.DIGITS, table, fmt="%d", delimiter=",")
    parts = pictures.digits()
    assert [len(part) for part in (parts.learnt, parts.validated, parts.scored)] == [11, 500, 1000]
    assert parts.scored.pixels[:, 3, 5].eq(7).all()
    assert int(parts.scored.pixels.sum()) == 7 * 1000
    assert parts.scored.classes.eq(9).all()


def test_step_t_is_row_t_from_0_to_1():
    pixels = torch.randint(0, 256, (3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    read = pictures.steps(pixels)
    assert read.shape == (3, 28, 28)
    for t in range(28):
        assert torch.equal((255 * read[:, t]).round().byte(), pixels[:, t])


@needs_data
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("fashion", [55_000, 5_000, 10_000]),
        ("mnist", [55_000, 5_000, 10_000]),
        ("digits", [3_500, 500, 1_000]),
    ],
)
def test_parts_have_their_sizes_and_no_picture_is_in_two(name, sizes):
    parts = [getattr(getattr(pictures, name)(), part) for part in ("learnt", "validated", "scored")]
    seen = [{picture.tobytes() for picture in part.pixels.numpy()} for part in parts]
    assert [len(part) for part in parts] == sizes
    assert len(set.union(*seen)) == sum(sizes)
    assert all(sorted(set(part.classes.tolist())) == list(range(10)) for part in parts)


# --- network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 13, 28, 37])
def test_network_is_an_lstm_cell_stepped_from_the_first_row_to_the_last(rows):
    torch.manual_seed(2)
    net = pictures.RowReader().eval()
    cell = nn.LSTMCell(28, 128)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.recurrent.state_dict().items()})
    picture = torch.rand(3, rows, 28)
    state = None
    with torch.no_grad():
        for t in range(rows):
            state = cell(picture[:, t], state)
        assert torch.allclose(net(picture), net.output(state[0]), atol=1e-6)


def test_network_has_one_layer_of_128_units_and_ten_classes():
    net = pictures.RowReader()
    gates, biases = 4 * 128 * (28 + 128), 2 * 4 * 128
    assert sum(p.numel() for p in net.parameters()) == gates + biases + 10 * 128 + 10 == 82_186


@pytest.mark.parametrize("file", FILES)
def test_checkpoint_is_small(file):
    assert (FOLDER / file).stat().st_size < MAX_CHECKPOINT_BYTES


@pytest.mark.parametrize("name", ["Fashion", "Mnist", "Digits"])
def test_task_gives_its_checkpoint_and_examples_of_any_number_of_rows(name):
    task = task_of(name)
    with torch.no_grad():
        assert task.model()(*task.example(5, 41)).shape == (5, 10)
    assert (task.min_length, task.length, task.max_length) == (1, 28, 56)


def test_first_task_is_fashion():
    assert load(str(FOLDER / "task.py")).name == "Fashion"


def test_pictures_are_scored_one_by_one_in_their_order(monkeypatch):
    monkeypatch.setattr(pictures, "SCORED_AT_ONCE", 7)

    def always_three(rows):
        return torch.eye(10)[3].expand(len(rows), 10)

    assert torch.equal(pictures.correct(always_three, made_up(23)), (torch.arange(23) % 10 == 3).float())


def test_task_without_fetched_data_says_how_to_fetch_it(monkeypatch, tmp_path):
    for unread in (pictures.fashion.__wrapped__, pictures.mnist.__wrapped__, pictures.digits.__wrapped__):
        check_missing(monkeypatch, pictures, tmp_path, "row_digits", unread)


@needs_data
@pytest.mark.parametrize(("name", "bound"), [("Fashion", 0.85), ("Mnist", 0.98), ("Digits", 0.92)])
def test_committed_checkpoint_has_about_the_accuracy_of_the_readme(name, bound):
    task = task_of(name)
    with torch.no_grad():
        scores = task.evaluate(task.model())
    assert scores.shape == ((1_000,) if name == "Digits" else (10_000,))
    assert float(scores.mean()) > bound


@needs_data
def test_columns_in_place_of_rows_are_not_understood():
    task, scored = task_of("Digits"), pictures.digits().scored
    turned = pictures.Pictures(scored.pixels.transpose(1, 2), scored.classes)
    with torch.no_grad():
        assert float(pictures.correct(task.model(), turned).mean()) < 0.5


@needs_data
def test_batches_hold_every_learnt_picture_once_in_an_order_of_the_generator():
    task, learnt = task_of("Digits"), pictures.digits().learnt
    first = list(task.batches(torch.Generator().manual_seed(5)))
    again = list(task.batches(torch.Generator().manual_seed(5)))
    assert [len(classes) for _, classes in first] == [128] * 27 + [44]
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(first, again, strict=True))
    given = {rows.numpy().tobytes() for (batch,), _ in first for rows in batch}
    assert given == {rows.numpy().tobytes() for rows in pictures.steps(learnt.pixels)}
