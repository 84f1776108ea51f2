"""`verify --arch cortex-m4`: generated C is repeated on an emulated board, with what it takes there."""

import json

import numpy as np
import pytest

from tests.boards import needs_board
from tests.cli.conftest import call
from tests.runtimes.microcontroller.test_proof import X, written


@needs_board
@pytest.mark.parametrize("arch", ["cortex-m4", "cortex-m7"])
def test_a_file_is_run_on_a_board_and_its_needs_are_told(arch, tmp_path):
    path = written(tmp_path, X * 2 + 7)
    result = call("verify", path, "--arch", arch, "--json")
    (told,) = json.loads(result.out)
    assert (result.code, told["file"], told["agrees"], told["emulated"], told["cpu"]) == (
        0,
        str(path),
        True,
        True,
        arch,
    )
    assert told["flash_bytes"] > 500
    assert told["ram_bytes"] == 80 + told["stack_bytes"]
    assert "none says how fast it is" in result.err


@needs_board
def test_a_file_that_gives_something_else_there_ends_with_1_unless_that_is_allowed(tmp_path):
    path = written(tmp_path, X * 2 + np.float32(7.5))
    result = call("verify", path, "--arch", "cortex-m4")
    assert (result.code, result.out.split()[-1]) == (1, "DISAGREES")
    assert call("verify", path, "--arch", "cortex-m4", "--atol", "0.6").code == 0


def test_other_files_and_options_of_the_other_kind_are_refused(finished, tmp_path):
    result = call("verify", finished[0] / "model.onnx", "--arch", "cortex-m4")
    assert (result.code, "is not generated C" in result.err) == (2, True)
    result = call("verify", tmp_path / "m.c", "--arch", "cortex-m7", "--setup")
    assert (result.code, "do not go with --arch cortex-m7" in result.err) == (2, True)
    assert "no file to verify" in call("verify", "--arch", "cortex-m7").err


def test_a_c_file_of_anybody_has_no_proof(tmp_path):
    (tmp_path / "m.c").write_text("int main(void) { return 0; }\n")
    result = call("verify", tmp_path / "m.c", "--arch", "cortex-m4")
    assert result.code == 2
