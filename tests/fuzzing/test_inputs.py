"""The first inputs of `benchmarks/fuzz_inputs.py`, and whether its judge notices what is wrong."""

import importlib.util
from pathlib import Path

import pytest

from compressor.errors import UsageError
from tests.fuzzing import checkpoints, onnx_files, options, recipes, verdict
from tests.fuzzing.kinds import KINDS, attempt
from tests.fuzzing.values import ESCAPE
from tests.fuzzing.verdict import Case, Outcome, judge, of_command, of_function

COMMAND = Path(__file__).parents[2] / "benchmarks" / "fuzz_inputs.py"


def command():
    specification = importlib.util.spec_from_file_location("fuzz_inputs", COMMAND)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"tasks"}))
@pytest.mark.parametrize("number", range(8))
def test_random_input_is_answered(kind, number):
    assert attempt(1, number, kind).wrong == ""


@pytest.mark.slow
def test_three_hundred_inputs_of_all_kinds_are_answered(capfd):
    assert command().main(["--count", "300", "--seed", "1"]) == 0, capfd.readouterr().out


LISTED = [(module, what) for module in (recipes, checkpoints, onnx_files, options) for what in module.MUST_REFUSE]


@pytest.mark.parametrize(("module", "what"), LISTED, ids=lambda part: part if isinstance(part, str) else "")
def test_each_input_of_the_lists_is_refused(module, what, tmp_path):
    assert judge(module.listed(what, tmp_path)) == ("", True)


def _hangs():
    while True:
        pass


def _raises():
    raise KeyError("gone")


@pytest.mark.parametrize(
    ("expected", "run", "said"),
    [
        ("either", _raises, "traceback: KeyError"),
        ("either", lambda: of_command("validate", "quickstart") and _raises(), "traceback: KeyError"),
        ("refused", lambda: of_command("validate", "quickstart"), "accepted"),
        ("accepted", lambda: of_command("validate", "nowhere"), "refused: error: unknown recipe"),
        ("either", lambda: Outcome(False, "", "exit code 70"), "exit code 70"),
        ("either", lambda: Outcome(False, ESCAPE), "control characters reach the terminal"),
        ("either", lambda: Outcome(True, "it failed"), "refused without an error"),
        ("either", lambda: Outcome(True, "error: x\n" * 10**4), "an error of 90000 characters"),
    ],
)
def test_the_judge_notices_what_is_wrong(expected, run, said):
    assert judge(Case("", expected, run))[0].startswith(said)


def test_the_judge_notices_a_hang(monkeypatch):
    monkeypatch.setattr(verdict, "SECONDS", 0.2)
    monkeypatch.setattr(verdict.watchdog.__wrapped__, "__defaults__", (0.2,))
    assert judge(Case("", "either", _hangs)) == ("no answer in 0.2 s", False)


def test_the_judge_is_content_with_an_error_that_is_expected():
    def refuse():
        raise UsageError("no", hint="do")

    assert judge(Case("", "refused", lambda: of_function(refuse))) == ("", True)


def test_a_process_that_dies_is_the_fault_of_the_input_that_it_was_at(capsys, monkeypatch, tmp_path):
    module = command()
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import json, os, sys\n"
        "first = int(sys.argv[sys.argv.index('--first') + 1])\n"
        "for number in range(first, 3):\n"
        "    begun = {'number': number, 'kind': 'recipes'}\n"
        "    print(json.dumps(begun), flush=True)\n"
        "    if number == 1: print('so it ends', file=sys.stderr, flush=True); os.abort()\n"
        "    print(json.dumps({**begun, 'what': '', 'refused': True, 'wrong': '', 's': 0.1}), flush=True)\n"
    )
    monkeypatch.setattr(module, "__file__", str(dying))
    assert module.main(["--count", "3"]) == 1
    printed = capsys.readouterr().out
    assert "1: recipes: : its process ended (-6): so it ends" in printed
    assert "seed 0, 3 inputs" in printed
