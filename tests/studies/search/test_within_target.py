"""What a target does not take is left out of the space, and files are checked against its table."""

import textwrap

import pytest
import torch

from compressor.errors import ExportError, UsageError
from compressor.onnx_graphs.partition import Refusal
from compressor.studies.search.building import build
from compressor.studies.search.goals import Goals
from compressor.studies.search.study_facts import Decisions
from compressor.studies.search.subject import Subject
from compressor.studies.search.within_target import refuse_more
from compressor.task.loading import load
from tests.studies.search.tiny import TASK

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "task.py"
    path.write_text(textwrap.dedent(TASK), encoding="utf-8")
    return Subject(load(str(path)), torch.device("cpu"), 0)


def built(subject, decided, target="qnn", **shapes):
    exports = [{"format": "onnx", **({"shapes": shapes} if shapes else {})}]
    goals = Goals.model_validate({"max_drop": 0.03, "trials": 3, "target": target, "exports": exports})
    return build(goals, subject, decided)


def test_qnn_has_no_gru_so_integers_of_plain_operations_are_left(subject, monkeypatch):
    decided = Decisions()
    space = built(subject, decided, batch=1, time=5)
    assert space.precisions == ("int8",)
    export = space.export(space.with_nothing_removed()[0])
    assert (export.precision, export.rounding.quantize_for, export.may_be_larger) == ("int8", "npu", True)
    assert any("precision float32: qnn does not take GRU" in why for why in space.left_out)
    monkeypatch.setattr("compressor.studies.search.within_target._measured", None)  # a study that goes on knows it
    again = Decisions.model_validate_json(decided.model_dump_json())
    assert built(subject, again, batch=1, time=5) == space
    refuse_more(space, "int8", [])
    with pytest.raises(ExportError, match=r"qnn does not take LSTM \(not in the table\)"):
        refuse_more(space, "int8", [Refusal("LSTM", "not in the table", 1, ("a",))])


def test_onnxruntime_takes_everything_and_loses_nothing(subject):
    space = built(subject, Decisions(), target="ort-cpu")
    assert space.precisions == ("float32", "float16", "int8", "int4", "mixed")
    assert not any("ort-cpu" in why for why in space.left_out)
    assert space.rounding["int8"] == {"quantize_for": "cpu"}


def test_a_runtime_of_which_only_failures_are_known_gets_plain_onnx(subject):
    space = built(subject, Decisions(), target="mnn")
    assert space.rounding["int8"] == {"quantize_for": "anywhere"}


def test_open_sizes_are_refused_with_the_option_that_fixes_them(subject):
    with pytest.raises(UsageError, match="takes fixed sizes only") as caught:
        built(subject, Decisions())
    assert "--shape batch=1" in caught.value.hint
