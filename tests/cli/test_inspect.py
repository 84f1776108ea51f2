"""`inspect`: the layers of a task's model and what can be pruned."""

import json

import pytest

from tests.cli.conftest import call


def test_every_module_is_counted_and_says_what_can_be_pruned(files):
    result = call("inspect", "--task", files / "task.py", "--json")
    gru, out = json.loads(result.out)["modules"]
    assert (gru["name"], gru["type"], gru["parameters"]) == ("gru", "GRU", 3 * 11 * (3 + 11 + 2))
    assert (gru["units"], gru["units_refused"], gru["weights"]) == (11, None, "default")
    assert gru["shapes"]["weight_ih_l0"] == [33, 3]
    assert (out["parameters"], out["units"], out["weights"]) == (24, None, "named")
    assert gru["share"] + out["share"] == pytest.approx(1.0)


def test_the_table_ends_with_the_total(files):
    lines = call("inspect", "--task", files / "task.py").out.splitlines()
    assert lines[2].endswith("units (11); weights")
    assert lines[-1] == "552 parameters, 0 of them zero; 2.2 KiB of weights"


def test_evaluate_adds_the_metric_with_its_interval(files):
    score = json.loads(call("inspect", "--task", files / "task.py", "--evaluate", "--json").out)["score"]
    assert score["metric"] == "accuracy"
    assert score["interval"]["low"] <= score["value"] <= score["interval"]["high"]
    assert "\naccuracy 0." in call("inspect", "--task", files / "task.py", "--evaluate").out


def test_attention_is_listed_with_its_heads_or_the_reason(files):
    made = ("self.first = nn.MultiheadAttention(12, 4)", "self.second = nn.MultiheadAttention(12, 3, add_bias_kv=True)")
    text = (files / "task.py").read_text()
    text = text.replace("        self.out =", "".join(f"        {layer}\n" for layer in made) + "        self.out =")
    (files / "attending.py").write_text(text)
    first, second = json.loads(call("inspect", "--task", files / "attending.py", "--json").out)["attention"]
    assert (first["name"], first["kind"], first["heads"], first["head_width"]) == ("first", "multihead", 4, 3)
    assert (first["refused"], second["refused"]) == (None, "it has add_bias_kv=True")
    lines = call("inspect", "--task", files / "attending.py").out.splitlines()
    assert any(line.split() == ["first", "4", "3", "heads"] for line in lines)


def test_a_layer_whose_units_cannot_be_taken_says_why(files):
    text = (
        (files / "task.py")
        .read_text()
        .replace("self.out(self.gru(features)[0][:, -1])", "self.gru(features)[0][:, -1]")
    )
    (files / "bare.py").write_text(text)
    gru = json.loads(call("inspect", "--task", files / "bare.py", "--json").out)["modules"][0]
    assert gru["units"] is None
    assert "output" in gru["units_refused"]
    assert "not units: " in call("inspect", "--task", files / "bare.py").out


def test_a_missing_task():
    result = call("inspect", "--task", "nowhere.py")
    assert (result.code, result.err.splitlines()[0]) == (2, "error: no task file at nowhere.py")


def test_an_example_that_does_not_fit_the_model(files):
    text = (files / "task.py").read_text().replace("torch.randn(batch, length, 3)", "torch.randn(batch, length, 4)")
    (files / "unfit.py").write_text(text)
    result = call("inspect", "--task", files / "unfit.py")
    assert (result.code, result.out) == (2, "")
    error = "error: the model does not run on `example(2, 7)` of shapes (2, 7, 4): RuntimeError: "
    assert result.err.startswith(f"loading {files / 'unfit.py'}\n{error}")
