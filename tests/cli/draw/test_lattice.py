"""`draw lattice`: the order of each recurrent layer, as facts, as JSON and as a diagram."""

import json

from tests.cli.conftest import call


def test_the_order_is_shown_and_drawn(files, tmp_path):
    result = call("draw", "lattice", "--task", files / "task.py", "--percentile", "70", "--out", tmp_path / "made")
    assert "layer 0 of `gru`: 11 units in" in result.out
    assert "36 of 121 connections" in result.out or "37 of 121 connections" in result.out
    assert (tmp_path / "made" / "lattice.svg").read_text().startswith("<svg ")


def test_the_facts_come_as_json_and_no_file_is_written_without_a_folder(files):
    result = call("draw", "lattice", "--task", files / "task.py", "--json")
    (layer,) = json.loads(result.out)["layers"]
    assert layer["units"] == 11
    assert layer["irreducible"] <= layer["classes"] <= 11
    assert layer["connections"] == 121


def test_an_order_that_says_nothing_is_told_with_the_reason(files):
    result = call("draw", "lattice", "--task", files / "task.py", "--order", "reachability", "--percentile", "0")
    assert "cannot guide pruning: one class holds 11 of 11 units" in result.out
