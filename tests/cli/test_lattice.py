"""`inspect --lattice`: the order of each recurrent layer, as facts, as JSON and as a diagram."""

import json

from tests.cli.conftest import call


def test_the_order_is_shown_and_drawn(files, tmp_path):
    result = call("inspect", "--task", files / "task.py", "--lattice", "--percentile", "70", "--out", tmp_path / "made")
    assert "layer 0 of `gru`: 11 units in" in result.out
    assert "36 of 121 connections" in result.out or "37 of 121 connections" in result.out
    assert (tmp_path / "made" / "lattice.svg").read_text().startswith("<svg ")


def test_the_facts_come_as_json_and_no_file_is_written_without_a_folder(files):
    result = call("inspect", "--task", files / "task.py", "--lattice", "--json")
    (layer,) = json.loads(result.out)["layers"]
    assert layer["units"] == 11
    assert layer["irreducible"] <= layer["classes"] <= 11
    assert layer["connections"] == 121


def test_an_order_that_says_nothing_is_told_with_the_reason(files):
    result = call("inspect", "--task", files / "task.py", "--lattice", "--order", "reachability", "--percentile", "0")
    assert "cannot guide pruning: one class holds 11 of 11 units" in result.out


def test_options_without_their_question_are_refused(files):
    for option, owner in (("--percentile=5", "--lattice"), ("--ratios=0.5", "--sensitivity")):
        result = call("inspect", "--task", files / "task.py", option)
        assert result.code == 2
        assert f"belongs to {owner}" in result.err
    both = call("inspect", "--task", files / "task.py", "--lattice", "--sensitivity")
    assert both.code == 2
    assert "two questions" in both.err
