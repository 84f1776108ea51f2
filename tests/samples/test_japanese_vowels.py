"""The Japanese-vowels sample: its data, its networks and what its README promises."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from compressor.recipe import load as load_recipe
from compressor.task.loading import load

FOLDER = Path(__file__).parents[2] / "samples" / "japanese_vowels"
sys.path.insert(0, str(FOLDER))

import vowels  # noqa: E402

MAX_CHECKPOINT_BYTES = 300_000


@pytest.fixture(scope="module")
def gru():
    return load(f"{FOLDER / 'task.py'}:Gru")


@pytest.mark.parametrize(
    ("data", "count"), [(vowels.train_data, 216), (vowels.validation_data, 54), (vowels.test_data, 370)]
)
def test_each_split_has_its_sequences_of_7_to_29_steps_from_nine_speakers(data, count):
    (features, lengths), speakers = data()
    assert features.shape == (count, int(lengths.max()) if count == 370 else features.shape[1], 12)
    assert lengths.shape == speakers.shape == (count,)
    assert int(lengths.min()) >= 7
    assert int(lengths.max()) <= 29
    assert sorted(set(speakers.tolist())) == list(range(9))


def test_no_sequence_is_in_two_splits():
    splits = [vowels.train_data()[0][0], vowels.validation_data()[0][0], vowels.test_data()[0][0]]
    firsts = [{tuple(sequence[0].tolist()) for sequence in split} for split in splits]
    assert len(set.union(*firsts)) == sum(len(part) for part in firsts) == 640


def test_scaling_was_fitted_on_the_training_sequences_without_padding(gru):
    (features, lengths), _ = vowels.train_data()
    steps = torch.cat([sequence[:length] for sequence, length in zip(features, lengths, strict=True)])
    net = gru.model()
    assert torch.allclose(net.mean, steps.mean(dim=0), atol=1e-5)
    assert torch.allclose(net.deviation, steps.std(dim=0), atol=1e-5)


@pytest.mark.parametrize(("name", "accuracy"), [("Gru", 362 / 370), ("Lstm", 361 / 370)])
def test_committed_checkpoint_has_the_accuracy_of_the_readme(name, accuracy):
    task = load(f"{FOLDER / 'task.py'}:{name}")
    with torch.no_grad():
        correct = task.evaluate(task.model())
    assert correct.shape == (370,)
    assert float(correct.mean()) == pytest.approx(accuracy, abs=1.5 / 370)


@pytest.mark.parametrize("file", ["gru.safetensors", "lstm.safetensors", "tagger.safetensors"])
def test_checkpoint_is_small(file):
    assert (FOLDER / file).stat().st_size < MAX_CHECKPOINT_BYTES


@pytest.fixture(scope="module")
def turns():
    return load(f"{FOLDER / 'turns.py'}:Turns")


def test_every_test_step_is_asked_once_and_the_tagger_has_the_accuracy_of_the_readme(turns):
    with torch.no_grad():
        found = turns.evaluate(turns.model())
    (_, lengths), _ = vowels.test_data()
    assert torch.equal(torch.bincount(found.groups), lengths)
    assert len(found.per_sample) == 5687
    assert float(found.per_sample.mean()) == pytest.approx(0.9411, abs=0.002)


def test_conversations_have_a_target_for_each_step_and_none_behind_their_end(turns):
    counted = 0
    for (heard,), speakers in turns.batches(torch.Generator().manual_seed(5)):
        assert heard.shape == (*speakers.shape, 12)
        assert not heard[speakers < 0].any()
        counted += int((speakers >= 0).sum())
    assert counted == 4 * int(vowels.train_data()[0][1].sum())


def test_an_answer_depends_on_what_was_heard_only(turns):
    net, x = turns.model(), turns.example(1, 40)[0]
    with torch.no_grad():
        torch.testing.assert_close(net(x[:, :17]), net(x)[:, :17], atol=1e-5, rtol=0)


def test_padding_behind_a_sequence_does_not_change_its_logits(gru):
    net = gru.model()
    features = torch.randn(1, 11, 12, generator=torch.Generator().manual_seed(3))
    padded = torch.cat([features, torch.full((1, 7, 12), 5.0)], dim=1)
    length = torch.tensor([11])
    with torch.no_grad():
        assert torch.allclose(net(features, length), net(padded, length), atol=1e-6)


def test_batches_cover_the_training_sequences_once_in_the_generators_order(gru):
    first = list(gru.batches(torch.Generator().manual_seed(5)))
    again = list(gru.batches(torch.Generator().manual_seed(5)))
    lengths = torch.cat([batch[0][1] for batch in first])
    assert torch.equal(lengths.sort().values, vowels.train_data()[0][1].sort().values)
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(first, again, strict=True))
    assert all(features.shape[1] == int(part.max()) for (features, part), _ in first)


def test_example_has_varied_lengths_up_to_the_one_asked_for(gru):
    features, lengths = gru.example(7, 13)
    assert features.shape == (7, 13, 12)
    assert int(lengths.max()) == 13
    assert int(lengths.min()) >= 1
    assert len(set(lengths.tolist())) > 1


def test_task_file_is_under_60_lines_and_its_first_task_is_the_gru():
    assert len((FOLDER / "task.py").read_text().splitlines()) < 60
    assert load(str(FOLDER / "task.py")).name == "Gru"


def test_quickstart_asks_for_a_quarter_of_the_units_and_a_file_25_times_smaller():
    recipe = load_recipe("quickstart")
    assert recipe.steps[0].ratio == 0.75
    assert recipe.limits.metric_drop == 0.01
    assert recipe.limits.file_ratio == 25


def test_the_padded_task_has_one_length_and_the_same_score(gru):
    padded = load(str(FOLDER / "padded.py"))
    sizes = {inputs[0].shape[1] for inputs, _ in padded.batches(torch.Generator().manual_seed(0))}
    assert sizes == {padded.min_length} == {padded.max_length} == {vowels.LONGEST}
    model = padded.model()
    with torch.no_grad():
        assert torch.equal(padded.evaluate(model), gru.evaluate(model))
