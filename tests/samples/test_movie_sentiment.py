"""The movie-sentiment sample: sentences, splits, vocabulary, the network; with the fetched data, its accuracy too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from compressor.errors import TaskError
from compressor.methods.base import Context, State
from compressor.methods.lama import Lama
from compressor.progress import Silent
from compressor.task.loading import load

FOLDER = Path(__file__).parents[2] / "samples" / "movie_sentiment"
sys.path.insert(0, str(FOLDER))

import reviews  # noqa: E402

needs_data = pytest.mark.skipif(
    not (reviews.CACHE / reviews.ARCHIVE).is_file(), reason="run samples/movie_sentiment/fetch.py first"
)
LINES = "1\t2.5\tIt's ''great'', isn't it?\n2\t-0.6\tToo tepid &amp; long  biopic\n3\t1.0\t---\n"


def sentences(count):
    return [reviews.Sentence((f"word{index:03d}", "."), 1.0 - 2.0 * (index % 2)) for index in range(count)]


def test_words_are_lower_case_with_their_apostrophes_and_the_marks_that_part_them():
    assert reviews.parse(LINES) == [
        reviews.Sentence(("it's", "great", ",", "isn't", "it", "?"), 2.5),
        reviews.Sentence(("too", "tepid", "long", "biopic"), -0.6),
    ]


def test_a_wording_is_in_one_part_only_whatever_its_marks_and_the_order_of_the_file():
    given = [*sentences(97), reviews.Sentence(("word005", "!"), 2.0), reviews.Sentence(("so", "so"), 0.2)]
    parts = reviews.split(given, scored=13, validated=11)
    found = [{sentence.words[0] for sentence in part} for part in (parts.scored, parts.validated, parts.learnt)]
    assert [len(words) for words in found] == [13, 11, 73]
    assert len(set.union(*found)) == 97
    assert reviews.split(given[::-1], scored=13, validated=11).scored[0].words[0] == parts.scored[0].words[0]


def test_the_most_frequent_words_of_the_learnt_part_have_signs_and_the_others_share_one():
    learnt = [reviews.Sentence(tuple("cabbage"), 1.0), reviews.Sentence(tuple("ebb"), -1.0)]
    known = reviews.vocabulary(learnt, size=5)
    assert known == {"b": 2, "a": 3, "e": 4}
    signs, lengths = reviews.encode([reviews.Sentence(("b", "c"), 1.0), reviews.Sentence(("a",), 1.0)], known)
    assert signs.tolist() == [[2, reviews.UNKNOWN], [3, reviews.PAD]]
    assert lengths.tolist() == [2, 1]


def test_missing_data_are_named_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(reviews, "CACHE", tmp_path)
    reviews.reviews.cache_clear()
    with pytest.raises(TaskError, match=r"fetch\.py"):
        reviews.reviews()


@pytest.mark.parametrize("name", ["MovieSentiment", "Encoder"])
def test_what_stands_behind_a_sentence_makes_no_difference(name):
    task = load(f"{FOLDER / 'task.py'}:{name}")
    model = task.model().eval()
    words, lengths = task.example(3, 11)
    other = words.masked_fill(torch.arange(11) >= lengths[:, None], 7)
    torch.testing.assert_close(model(words, lengths), model(other, lengths), atol=1e-6, rtol=1e-6)
    longer = torch.cat([words, torch.full((3, 5), 7)], 1)
    torch.testing.assert_close(model(words, lengths), model(longer, lengths))


@needs_data
def test_the_parts_are_disjoint_balanced_and_of_the_sizes_in_the_readme():
    reviews.reviews.cache_clear()
    parts = reviews.reviews()
    assert [len(part) for part in (parts.scored, parts.validated, parts.learnt)] == [2000, 1000, 7072]
    words = [{sentence.words for sentence in part} for part in (parts.scored, parts.validated, parts.learnt)]
    assert not words[0] & words[1] | words[0] & words[2] | words[1] & words[2]
    good = sum(sentence.rating > 0 for sentence in parts.scored) / 2000
    assert 0.45 < good < 0.55


@needs_data
def test_the_checkpoint_has_the_accuracy_in_the_readme_and_lama_gives_nearly_what_its_pooling_gave():
    task = load(str(FOLDER / "task.py"))
    model = task.model()
    with torch.no_grad():
        assert float(task.evaluate(model).mean()) == pytest.approx(0.8055, abs=0.002)
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    result = Lama(target="pooling", fit_steps=60, calibration_batches=16).apply(State(model), context)
    (change,) = result.changes
    assert (change.parameters_before, change.parameters_after) == (46_200, 1_168)
    assert result.facts["explained_by_lama"] > 0.93 > result.facts["explained_by_mean"]
    with torch.no_grad():
        assert float(task.evaluate(result.state.model).mean()) > 0.78


@needs_data
def test_over_an_encoder_lama_gives_nearly_what_its_pooling_gave_and_so_does_a_mean():
    task = load(f"{FOLDER / 'task.py'}:Encoder")
    model = task.model()
    with torch.no_grad():
        assert float(task.evaluate(model.eval()).mean()) == pytest.approx(0.7775, abs=0.002)
    context = Context(task, model, torch.device("cpu"), torch.Generator().manual_seed(0), Silent())
    result = Lama(target="pooling", fit_steps=60, calibration_batches=16).apply(State(model), context)
    (change,) = result.changes
    assert (change.parameters_before, change.parameters_after) == (23_800, 592)
    assert result.facts["explained_by_lama"] > 0.99
    assert result.facts["explained_by_mean"] > 0.99
    with torch.no_grad():
        assert float(task.evaluate(result.state.model).mean()) > 0.76
