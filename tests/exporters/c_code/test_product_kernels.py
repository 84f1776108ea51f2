"""Products of rounded weights, and of inputs that become whole numbers, against what the numbers stand for."""

import json
import shutil
import subprocess

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from compressor.nn.integers import rows_to_nearest
from compressor.runtimes.microcontroller.boards import BOARDS, tools
from compressor.runtimes.microcontroller.program import Call, Code
from compressor.runtimes.microcontroller.running import run
from exporters.c_code.files import write
from exporters.c_code.inner_products import BLOCK
from exporters.c_code.kernels import KERNELS
from exporters.c_code.product_kernels import PRODUCTS, held, row_bytes, rows_function
from exporters.c_code.rounding import Rounding, packed, unpacked
from tests.boards import needs_board
from tests.compilers import CC, needs_compiler
from tests.exporters.c_code.test_operators import STRICT, computed, graph, normal

KINDS = [(bits, activations) for bits in (8, 4) for activations in ("float32", "int16", "int8")]
SIZES = [(1, 7, 5), (3, 37, 11), (2, 64, 3), (1, 1, 1), (1, 2 * BLOCK + 9, 6)]


def product(m, k, n):
    """A product of (m, k) and (k, n) with a bias, and its weights."""
    weights, bias = normal(k, n), normal(n)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    return graph(nodes, [("x", [m, k])], [("y", [m, n])], {"w": weights, "b": bias}), weights, bias


def as_whole(x, most):
    """What a vector becomes: whole numbers up to `most` times a scale, halves away from zero, in float32 as in C."""
    peak = np.abs(x).max()
    value = x * (np.float32(most) / peak)
    return np.trunc(value + np.copysign(np.float32(0.5), value)).astype(np.float64) * (float(peak) / most)


def reference(x, weights, bias, bits, activations):
    rows = weights.T
    rounded = rows_to_nearest(rows, bits, rows.shape[1] if bits == 8 else BLOCK).weight
    most = {"int8": 127, "int16": min(32767, (2**31 - 1) // 127 // rows.shape[1]) if bits == 8 else 32767}
    inputs = (
        x.astype(np.float64) if activations == "float32" else np.stack([as_whole(row, most[activations]) for row in x])
    )
    return inputs @ rounded.T + bias


@needs_compiler
@pytest.mark.parametrize(("bits", "activations"), KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_product_is_that_of_what_the_whole_numbers_stand_for(size, bits, activations, tmp_path):
    model, weights, bias = product(*size)
    x = normal(*size[:2]) * 3
    [result] = computed(model, {"x": x}, tmp_path, rounding=Rounding(None, bits, activations))
    wanted = reference(x, weights, bias, bits, activations)
    np.testing.assert_allclose(result, wanted, rtol=2e-6, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("activations", ["float32", "int16", "int8"])
def test_odd_numbers_of_rows_are_right_when_everything_is_optimised(activations, tmp_path):
    nodes, weights, width = [], {}, 8
    widths = (20, 5, 9, 7, 14, 7, 9, 7, 3)
    for index, rows in enumerate(widths):
        weights |= {f"w{index}": normal(width, rows), f"b{index}": normal(rows)}
        nodes += [
            helper.make_node("MatMul", [f"x{index}", f"w{index}"], [f"p{index}"]),
            helper.make_node("Add", [f"p{index}", f"b{index}"], [f"x{index + 1}"]),
        ]
        width = rows
    model, x = graph(nodes, [("x0", [1, 8])], [(f"x{len(widths)}", [1, 3])], weights), normal(1, 8)
    rounding = Rounding(None, 8, activations)
    plain, fast = (computed(model, {"x0": x}, tmp_path, rounding=rounding, level=level)[0] for level in ("-O1", "-O3"))
    np.testing.assert_allclose(fast, plain, rtol=1e-6, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("activations", ["int16", "int8"])
def test_the_largest_numbers_do_not_overflow(activations, tmp_path):
    model, weights, bias = product(1, 3001, 2)
    weights = np.full_like(weights, 0.5)
    model, x = graph_of(weights, bias), np.full((1, 3001), -7.0, np.float32)
    [result] = computed(model, {"x": x}, tmp_path, rounding=Rounding(None, 8, activations))
    np.testing.assert_allclose(result, x @ weights + bias, rtol=2e-3)


def graph_of(weights, bias):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    sizes = weights.shape
    return graph(nodes, [("x", [1, sizes[0]])], [("y", [1, sizes[1]])], {"w": weights, "b": bias})


@needs_compiler
@pytest.mark.parametrize(("bits", "activations"), KINDS)
def test_inputs_of_zeros_give_the_bias(bits, activations, tmp_path):
    model, _, bias = product(1, 9, 4)
    x = np.zeros((1, 9), np.float32)
    [result] = computed(model, {"x": x}, tmp_path, rounding=Rounding(None, bits, activations))
    np.testing.assert_array_equal(result[0], bias)


@needs_board
@pytest.mark.parametrize("rest", [13, 14, 15])  # of groups of four, whose elements change places
@pytest.mark.parametrize(("bits", "activations"), [kind for kind in KINDS if kind[1] != "float32"])
def test_two_products_an_instruction_give_the_same_sums(bits, activations, rest, tmp_path):
    model, _, _ = product(2, 2 * BLOCK + rest, 60)
    rounding = Rounding(None, bits, activations)
    x = normal(2, 2 * BLOCK + rest)
    [here] = computed(model, {"x": x}, tmp_path, rounding=rounding)
    written = write(ir.from_proto(model), "net", None, rounding=rounding, facts=["a test"])
    code = Code.of(tmp_path / "net.c", json.loads(json.dumps(written.interface())))
    found = {}
    for flags in (("-O2",), ("-O2", "-U__ARM_FEATURE_DSP")):
        outcome = run(code, [Call([x])], BOARDS["cortex-m4"], tools(), flags=flags)
        [[there]] = outcome.outputs
        np.testing.assert_allclose(there, here, rtol=1e-6, atol=1e-6)
        found[flags] = outcome.instructions[0]
    assert found["-O2",] < 0.8 * found["-O2", "-U__ARM_FEATURE_DSP"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("level", ["-O2", "-O3"])
@pytest.mark.parametrize(("bits", "activations"), [(32, "float32"), *KINDS])
def test_no_length_of_a_row_makes_a_compiler_suspicious(bits, activations, level, tmp_path):
    rounding = None if bits == 32 else Rounding(None, bits, activations)
    for length in (1, 2, 3, 4, 5, 7, 8, 31, 32, 33, 40, 64):  # a single product is compiled for this length alone
        written = write(ir.from_proto(product(1, length, 3)[0]), "net", None, rounding=rounding, facts=[])
        (tmp_path / "net.h").write_text(written.header)
        (tmp_path / "net.c").write_text(written.code)
        assert said([CC, *STRICT, level, "-c", "net.c"], tmp_path) == "", length


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_every_function_compiles_as_cpp_too(tmp_path):
    used = "".join(f"    (void)k_{name};\n" for name in KERNELS if f" k_{name}(" in KERNELS[name])
    text = "".join(f"#include <{name}.h>\n" for name in ("math", "stddef", "stdint", "string"))
    (tmp_path / "all.cpp").write_text(
        f"{text}{''.join(KERNELS.values())}\nint main(void)\n{{\n{used}    return 0;\n}}\n"
    )
    flags = [flag for flag in STRICT if flag.startswith("-W") and "prototypes" not in flag and "bad-" not in flag]
    assert {"-Wall", "-Wextra", "-Werror"} <= {*flags}
    assert [name for name in KERNELS if f"k_{name};" not in used] == ["acle"]  # an include
    assert said(["g++", "-std=c++17", *flags, "-c", "all.cpp"], tmp_path) == ""


def said(command, folder):
    """What a compiler says, which is nothing if all is well, and that it did not fail in silence."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


@pytest.mark.parametrize("columns", [1, 2, 7, 32, 37, 64, 73])
def test_two_weights_of_4_bits_lie_in_a_byte(columns):
    values = np.random.default_rng(0).integers(-8, 8, (5, columns)).astype(np.int8)
    data = packed(values)
    assert data.shape == (5, row_bytes(columns))
    np.testing.assert_array_equal(unpacked(data, columns), values)
    assert packed(np.array([[-7, 3, 0, 0, 7]], np.int8)).tolist() == [[1 | 15 << 4, 11 | 8 << 4, 136, 136]]


def test_weights_of_4_bits_take_half_the_bytes():
    model, _, _ = product(1, 64, 10)
    sizes = [
        write(ir.from_proto(model), "net", None, rounding=Rounding(None, bits), facts=[]).constant_bytes
        for bits in (8, 4)
    ]
    assert sizes == [64 * 10 + 4 * 10 + 4 * 10, 32 * 10 + 2 * 4 * 10 + 4 * 10]


def test_every_kind_of_product_has_its_function():
    assert {rows_function(*kind) for kind in KINDS} | {"rows"} <= PRODUCTS.keys()
    assert [held(*kind) for kind in KINDS] == ["", "int16_t", "int8_t", "", "int16_t", "int16_t"]
