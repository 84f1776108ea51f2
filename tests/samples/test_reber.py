"""The Reber sample: its data, its networks, and the table that its README shows."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from compressor.studies.graphs.analysis import correlations, summaries
from compressor.studies.graphs.facts import Study
from compressor.studies.graphs.study import read
from compressor.task.loading import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "samples" / "reber"
sys.path.insert(0, str(ROOT / "samples"))

from reber import grammar, study, table, task  # noqa: E402

RESULTS = json.loads((FOLDER / "results.json").read_text())
CELLS = sorted(task.TASKS)


@pytest.fixture(scope="module")
def data():
    return task.data()


def test_valid_strings_of_each_length_are_as_many_as_in_the_thesis():
    assert [grammar.count(n) for n in range(11, 21)] == [24, 36, 53, 78, 115, 169, 248, 364, 534, 783]


@pytest.mark.parametrize("length", [5, 11, 16])
def test_nth_string_counts_through_every_accepted_string_once(length):
    strings = {grammar.nth_string(length, index) for index in range(grammar.count(length))}
    assert len(strings) == grammar.count(length)
    assert all(len(text) == length and grammar.accepts(text) for text in strings)


@pytest.mark.parametrize("text", ["BTXSE", "BPVVE", "BTSSXXTVPSE", "BPTTVPXVVE"])
def test_known_reber_strings_are_accepted(text):
    assert grammar.accepts(text)


@pytest.mark.parametrize("text", ["", "B", "BE", "BPXSE", "BTXS", "TXSE", "BTXSEE", "BTXE", "bTXSE", "BTXSSE"])
def test_other_strings_are_refused(text):
    assert not grammar.accepts(text)


@pytest.mark.parametrize("family", grammar.INVALID)
def test_no_string_of_an_invalid_family_is_valid(family):
    pairs = {(grammar.START, grammar.START)}  # every pair of states that one text reaches in both automata
    ours, theirs = grammar.steps(grammar.VALID), grammar.steps(family.letters)
    while True:
        reached = {
            (dict(ours[a])[letter], target)
            for a, b in pairs
            for letter, target in theirs.get(b, ())
            if letter in dict(ours.get(a, ()))
        }
        if reached <= pairs:
            break
        pairs |= reached
    assert (grammar.END, grammar.END) not in pairs


def test_data_have_the_sizes_of_the_thesis(data):
    train, test = data
    families = Counter(sample.family for sample in train + test)
    assert (len(train), len(test)) == (18_750, 6_250)
    assert families == {0: 12_500, 1: 1500, 2: 1500, 3: 500, 4: 2000, 5: 2000, 6: 2000, 7: 1500, 8: 1500}


def test_all_short_valid_strings_are_in_the_data_and_none_is_shorter_than_11(data):
    samples = data[0] + data[1]
    lengths = Counter(len(sample.text) for sample in samples if sample.valid)
    assert [lengths[n] for n in range(11, 21)] == [grammar.count(n) for n in range(11, 21)]
    assert min(len(sample.text) for sample in samples) == 11
    assert 45 <= max(len(sample.text) for sample in samples) <= 65


def test_valid_strings_are_unique_and_the_acceptor_tells_them_from_the_others(data):
    samples = data[0] + data[1]
    assert len({sample.text for sample in samples if sample.valid}) == 12_500
    assert all(grammar.accepts(sample.text) == sample.valid for sample in samples)


def test_every_invalid_string_is_of_its_family(data):
    for sample in data[1]:
        if not sample.valid:
            assert grammar.accepts(sample.text, grammar.INVALID[sample.family - 1].letters)


def test_drawn_strings_are_as_long_as_those_of_a_random_walk():
    draw = grammar.sampler(grammar.VALID, 11, random.Random(3))
    lengths = [len(draw()) for _ in range(4000)]
    weights = {n: grammar.count(n) * 0.5**n for n in range(11, 150)}
    expected = sum(n * weight for n, weight in weights.items()) / sum(weights.values())
    assert sum(lengths) / len(lengths) == pytest.approx(expected, abs=0.3)  # the standard error is 0.05


def test_split_is_the_same_for_a_seed(data):
    assert grammar.split(0) == data


def test_another_seed_draws_other_long_strings():
    first, second = (set(grammar.valid_strings(random.Random(seed))) for seed in (0, 1))
    assert all(len(text) > grammar.COMPLETE_UP_TO for text in first ^ second)
    assert len(first ^ second) > 1000


def test_validation_strings_are_in_neither_training_nor_test_data(data):
    known = {sample.text for samples in data for sample in samples}
    validation = task.validation_data()
    assert len(validation) == task.VALIDATION_COUNT
    assert not known & {sample.text for sample in validation}


@pytest.mark.parametrize(
    ("cell", "parameters"), [("tanh", 21_802), ("relu", 21_802), ("gru", 52_402), ("lstm", 67_702)]
)
def test_networks_have_the_parameters_of_the_thesis(cell, parameters):
    assert sum(p.numel() for p in task.TASKS[cell]().untrained().parameters()) == parameters


def test_a_batch_is_padded_with_zeros_at_the_end_to_its_longest_string():
    batch = [grammar.Sample("BTXSE", 0), grammar.Sample("BPX", 1)]
    assert task.encode(batch).tolist() == [[66, 84, 88, 83, 69], [66, 80, 88, 0, 0]]
    assert task.labels(batch).tolist() == [1, 0]


def test_an_epoch_holds_every_training_string_once_in_an_order_of_the_generator(data):
    lstm = task.LSTM()
    first = list(lstm.batches(torch.Generator().manual_seed(7)))
    again = list(lstm.batches(torch.Generator().manual_seed(7)))
    assert sum(len(target) for _, target in first) == len(data[0])
    assert all(torch.equal(a[0][0], b[0][0]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][1], task.labels(data[0][: task.BATCH]))


def test_evaluation_gives_the_accuracy_of_each_family(data):
    def says_valid(tokens):
        return torch.tensor([[0.0, 1.0]]).expand(len(tokens), 2)

    evaluation = task.LSTM().evaluate(says_valid)
    assert evaluation.parts == {"family 0": 1.0} | {f"family {n}": 0.0 for n in range(1, 9)}
    assert evaluation.per_sample.sum() == sum(sample.valid for sample in data[1])


@pytest.mark.parametrize("cell", CELLS)
def test_committed_network_reaches_the_accuracy_of_the_results(cell, data):
    model = load(f"{FOLDER / 'task.py'}:{task.TASKS[cell].__name__}").model()
    with torch.no_grad():
        evaluation = task.score(model, data[1][:1600])  # whole batches, so that the padding is that of the full test
    assert float(evaluation.per_sample.mean()) == pytest.approx(RESULTS[cell]["base"][0], abs=0.015)


@pytest.mark.parametrize("cell", CELLS)
def test_results_are_of_the_committed_weights_and_complete(cell):
    result = RESULTS[cell]
    assert result["sha256"] == table.fingerprint(task.TASKS[cell]().checkpoint)
    for matrices in table.MATRICES:
        assert [row["percent"] for row in result[matrices]] == list(table.PERCENTS)


def test_safe_level_ends_before_the_first_loss_of_more_than_two_points():
    assert table.safe_level(100.0, {10: 100.0, 20: 98.0, 30: 97.9, 40: 100.0}) == 20
    assert table.safe_level(100.0, {10: 50.0}) == 0


def test_readme_shows_the_results():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert table.with_tables(readme, RESULTS) == readme


def test_results_file_is_as_the_script_writes_it():
    assert (FOLDER / "results.json").read_text() == table.results_text(RESULTS)


def test_a_row_of_the_table_is_measured_by_the_tool_itself(monkeypatch, data):
    train, test = data
    monkeypatch.setattr(task, "data", lambda: (train[:64], test[:320]))
    row = table.prune_and_retrain(task.Tanh(), "both", 100, RESULTS["tanh"]["base"][0])
    assert row["pruned"][0] < 0.6
    assert len(row["pruned"]) == len(row["retrained"]) == 10


@pytest.mark.parametrize(
    ("cell", "means", "of_sources"), [("LSTM", (96.14, 87.22), 0.54), ("GRU", (93.18, 81.3), 0.67)]
)
def test_the_rows_of_the_study_are_those_that_the_page_shows(cell, means, of_sources):
    options = Study(task=f"samples/reber/study.py:{cell}", count=30, epochs=15)
    results = read(FOLDER / f"graphs_{cell.lower()}.json", options)
    shown = {kind: (part.count, round(100 * part.mean, 2)) for kind, part in summaries(results).items()}
    assert shown == {"ws": (30, means[0]), "ba": (30, means[1])}
    assert round(correlations(results.metrics())["source_nodes"], 2) == of_sources


def test_the_tasks_of_the_study_learn_from_every_third_string_once_an_epoch():
    batches = list(study.batches(torch.Generator().manual_seed(0)))
    assert sum(len(target) for _, target in batches) == 18_750 // 3
    padding = sum(int((tokens == 0).sum()) for (tokens,), _ in batches) / sum(
        tokens.numel() for (tokens,), _ in batches
    )
    assert padding < 0.05
