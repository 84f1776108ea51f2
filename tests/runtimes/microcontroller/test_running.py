"""Programs on emulated boards: what they give, the memory they take, and the instructions they need."""

import numpy as np
import pytest

from compressor.errors import ExportError
from compressor.runtimes.microcontroller.boards import BOARDS, tools
from compressor.runtimes.microcontroller.program import Array, Call, Code
from compressor.runtimes.microcontroller.running import run
from tests.boards import needs_board

HEADER = """
#include <stdint.h>
typedef struct { int32_t sum; float w[12]; } m_state;
void m_init(m_state *s);
void m_step(m_state *s, const float *x, const int32_t *n, float *y);
"""
CODE = """
#include "m.h"
void m_init(m_state *s) { s->sum = 0; }
void m_step(m_state *s, const float *x, const int32_t *n, float *y)
{
    s->sum += n[0];
    for (int i = 0; i < 3; ++i) { y[i] = x[i] * 2.0f + (float)s->sum; }
    {{BODY}}
}
"""
STACK = "volatile char room[1024]; for (int i = 0; i < 1024; ++i) { room[i] = 1; } y[0] += 0.0f * (float)room[7];"


def code_of(folder, body=""):
    (folder / "m.h").write_text(HEADER)
    (folder / "m.c").write_text(CODE.replace("{{BODY}}", body))
    inputs = (Array("in0", "float", (3,)), Array("in1", "int32_t", (1,)))
    return Code(folder / "m.c", "m.h", "m", "m_step", inputs, (Array("out0", "float", (1, 3)),))


def calls(*resets):
    x = np.array([1.5, -2.0, 0.25], np.float32)
    return [Call([x + index, np.array([index + 1], np.int32)], reset) for index, reset in enumerate(resets)]


@needs_board
@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_the_state_is_carried_from_call_to_call_and_made_new_at_a_reset(board, tmp_path):
    outcome = run(code_of(tmp_path), calls(True, False, True), board, tools())
    sums = [1, 3, 3]
    for index, ([y], total) in enumerate(zip(outcome.outputs, sums, strict=True)):
        np.testing.assert_array_equal(y, [(np.array([1.5, -2.0, 0.25], np.float32) + index) * 2 + total])
    assert y.shape == (1, 3)


@needs_board
def test_memory_is_counted_to_the_byte(tmp_path):
    board = BOARDS["cortex-m4"]
    small, large = (run(code_of(tmp_path, body), calls(True), board, tools()) for body in ("", STACK))
    assert small.image.ram_bytes == 4 + 12 * 4 + 3 * 4 + 4 + 3 * 4  # the state, the inputs, the output
    assert 1024 <= large.stack_bytes - small.stack_bytes < 1100
    more = tmp_path / "more"
    more.mkdir()
    table = run(code_of(more, "static const char t[900] = {1}; y[1] += t[n[0]];"), calls(True), board, tools())
    assert 900 <= table.image.flash_bytes - small.image.flash_bytes < 940


@needs_board
@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_thousand_instructions_more_are_a_thousand_more(board, tmp_path):
    few, many = (
        run(code_of(tmp_path, f'__asm volatile (".rept {count}\\n nop\\n .endr");'), calls(True, False), board, tools(),
            flags=["-Os", "-Wno-pedantic", "-std=gnu99"])
        for count in (10, 1010)
    )  # fmt: skip
    differences = [more - less for more, less in zip(many.instructions, few.instructions, strict=True)]
    assert all(abs(difference - 1000) <= 2 for difference in differences)
    assert few.instructions[0] < 120


@needs_board
def test_a_fault_of_the_processor_is_an_error_with_its_status(tmp_path):
    body = "y[0] = *(volatile float *)0x60000000u;"
    with pytest.raises(ExportError, match=r"m\.c on an emulated cortex-m4 ended by a fault of the processor \(status"):
        run(code_of(tmp_path, body), calls(True), BOARDS["cortex-m4"], tools())


@needs_board
def test_code_that_takes_more_stack_than_a_board_has_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="more than 65536 bytes of stack"):
        run(code_of(tmp_path, STACK.replace("1024", "70000")), calls(True), BOARDS["cortex-m4"], tools())


@needs_board
def test_a_warning_of_the_compiler_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="unused variable"):
        run(code_of(tmp_path, "int nothing;"), calls(True), BOARDS["cortex-m7"], tools())
