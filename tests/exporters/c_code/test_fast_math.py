"""exp, tanh and sigmoid in single precision: their errors are those that are stated."""

import ctypes
import subprocess

import numpy as np
import pytest
from onnx import helper

from exporters.c_code.fast_math import EXP_ERROR, FAST, SIGMOID_ERROR, TANH_ERROR, fast
from tests.compilers import CC, needs_compiler
from tests.exporters.c_code.test_operators import computed, graph

X = np.concatenate(
    [
        np.linspace(-87, 87, 400_001),
        np.linspace(-1, 1, 400_001),
        10.0 ** -np.arange(1, 38.0),
        -(10.0 ** -np.arange(37.0)),
    ]
).astype(np.float32)


def called(name, x, folder):
    """The function on every element; the loop is vectorised as in a model."""
    loop = f"void all(float *y, const float *x, int n) {{ for (int i = 0; i < n; ++i) {{ y[i] = k_{name}(x[i]); }} }}\n"
    needed = [text for word, text in FAST.items() if word in ("exp", name)]
    (folder / "f.c").write_text("#include <stdint.h>\n#include <string.h>\n" + "".join(needed) + loop)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-O3", "-shared", "-fPIC"]
    subprocess.run([CC, *strict, "-o", f"{name}.so", "f.c"], cwd=folder, check=True)
    y = np.empty_like(x)
    ctypes.CDLL(str(folder / f"{name}.so")).all(*(ctypes.c_void_p(array.ctypes.data) for array in (y, x)), len(x))
    return y


@needs_compiler
@pytest.mark.parametrize(
    ("name", "exact", "bound"),
    [
        ("exp", lambda x: (np.exp(x), np.exp(x)), EXP_ERROR),
        ("sigmoid", lambda x: (1 / (1 + np.exp(-x)), 1.0), SIGMOID_ERROR),
        ("tanh", lambda x: (np.tanh(x), 1.0), TANH_ERROR),
    ],
)
def test_errors_are_within_what_is_stated(name, exact, bound, tmp_path):
    value, scale = exact(X.astype(np.float64))
    assert (np.abs(called(name, X, tmp_path) - value) / scale).max() < bound


@needs_compiler
def test_far_from_zero_they_are_at_their_ends(tmp_path):
    far = np.array([1e3, 3e38, np.inf, -1e3, -3e38, -np.inf], np.float32)
    np.testing.assert_allclose(called("sigmoid", far, tmp_path), [1, 1, 1, 0, 0, 0], atol=1e-30)
    np.testing.assert_allclose(called("tanh", far, tmp_path), [1, 1, 1, -1, -1, -1], atol=1e-30)


@needs_compiler
def test_a_graph_calls_them_instead_of_the_library(tmp_path):
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
        helper.make_node("Softmax", ["c"], ["y"], axis=-1),
    ]
    x = np.linspace(-3, 3, 7, dtype=np.float32)[None]
    [y] = computed(graph(nodes, [("x", [1, 7])], [("y", [1, 7])]), {"x": x}, tmp_path, fast_math=True)
    code = (tmp_path / "net.c").read_text()
    assert "tanhf(" not in code
    assert "expf(" not in code
    inner = 1 / (1 + np.exp(-np.exp(np.tanh(x))))
    np.testing.assert_allclose(y, np.exp(inner) / np.exp(inner).sum(), atol=1e-6)


def test_other_functions_of_the_library_stay():
    assert fast("expm1f(x) + expf(x) + myexpf(x) + tanhf(x)") == "expm1f(x) + k_exp(x) + myexpf(x) + k_tanh(x)"
