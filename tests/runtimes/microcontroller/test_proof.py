"""A proof comes back from its text exactly, and a board that gives something else does not agree."""

import json

import numpy as np
import pytest

from compressor.errors import ExportError
from compressor.report import Emulated, FileDescription
from compressor.runtimes.microcontroller.boards import BOARDS, tools
from compressor.runtimes.microcontroller.program import Call
from compressor.runtimes.microcontroller.proof import KEY, Proof, read, verify
from tests.boards import needs_board
from tests.runtimes.microcontroller.test_running import code_of

ABOUT = {
    "init": "m_init", "call": "m_step", "bytes": 52, "states": [],
    "inputs": [["x", "float", [3]], ["n", "int32_t", [1]]], "outputs": [["y", "float", [1, 3]]],
}  # fmt: skip
X = np.array([1 / 3, np.pi, -1e-30], np.float32)


def written(folder, wanted):
    code_of(folder)
    call = Call([X, np.array([7], np.int32)], reset=True)
    proof = Proof([call], [[np.array([wanted], np.float32)]], 1e-5)
    details = {"c": json.dumps(ABOUT), KEY: proof.text()}
    description = FileDescription(format="c", runtime="c", inputs=(), outputs=(), details=details)
    (folder / "m.c.json").write_text(description.model_dump_json())
    return folder / "m.c"


def test_floats_come_back_exactly(tmp_path):
    code, proof = read(written(tmp_path, X * 2 + 7))
    np.testing.assert_array_equal(proof.calls[0].inputs[0], X)
    np.testing.assert_array_equal(proof.outputs[0][0], [X * 2 + 7])
    assert (code.name, code.call, code.header, proof.calls[0].reset, proof.atol) == ("m", "m_step", "m.h", True, 1e-5)


def test_a_file_without_a_proof_is_to_be_exported_again(tmp_path):
    path = written(tmp_path, X)
    bare = FileDescription(format="c", runtime="c", inputs=(), outputs=(), details={"c": json.dumps(ABOUT)})
    (tmp_path / "m.c.json").write_text(bare.model_dump_json())
    with pytest.raises(ExportError, match="has no proof") as refused:
        read(path)
    assert refused.value.hint == "export the file again"


@needs_board
def test_what_a_board_gives_is_compared(tmp_path):
    right = verify(*read(written(tmp_path, X * 2 + 7)), BOARDS["cortex-m4"], tools())
    wrong = verify(*read(written(tmp_path, X * 2 + 7.5)), BOARDS["cortex-m4"], tools())
    assert (right.agrees, wrong.agrees) == (True, False)
    assert right.max_absolute < 1e-6
    assert abs(wrong.max_absolute - 0.5) < 1e-6
    assert right.ram_bytes == 80 + right.stack_bytes


def test_a_difference_that_is_no_number_does_not_agree():
    facts = {"cpu": "cortex-m4", "board": "", "compiler": "", "flash_bytes": 1, "ram_bytes": 1, "stack_bytes": 1}
    one = Emulated(**facts, instructions=1, calls=1, max_absolute=float("nan"), atol=1.0)
    assert not one.agrees
