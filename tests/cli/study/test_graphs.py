"""`study graphs`: the tables, the file that is continued, and what is refused."""

import json

import pytest

from tests.cli.conftest import call


@pytest.mark.slow
def test_the_tables_are_printed_and_the_file_is_continued(files, tmp_path):
    path = tmp_path / "results.json"
    arguments = ["--task", files / "task.py", "--out", path, "--count", 2, "--nodes", "10..13", "--epochs", 1]
    shown = call("study", "graphs", *arguments)
    assert shown.code == 0
    assert shown.out.startswith("accuracy after 1 epochs from random weights\n")
    assert "Watts–Strogatz" in shown.out
    assert "source_nodes" in shown.out
    assert "no predictors: 4 graphs" in shown.err
    before = json.loads(path.read_text())["rows"]
    facts = json.loads(call("study", "graphs", *arguments, "--json").out)
    assert facts["rows"] == before
    assert set(facts["correlations"]) == {"all", "ws", "ba"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "10-50"], "error: --nodes takes two whole numbers, not `10-50`\nhint: such as --nodes 10..50\n"),
        (["--nodes", "5..50"], "error: the least of --nodes: input should be greater than or equal to 10\n"),
        (["--nodes", "30..20"], "error: the largest number of nodes, 20, is below the smallest, 30\n"),
        (["--kind", "er"], "error: --kind: input should be 'ws' or 'ba'\n"),
    ],
)
def test_a_wrong_option_is_refused_before_any_training(files, tmp_path, arguments, message):
    result = call("study", "graphs", "--task", files / "task.py", "--out", tmp_path / "results.json", *arguments)
    assert (result.code, result.err) == (2, message)
