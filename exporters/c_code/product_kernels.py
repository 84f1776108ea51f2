"""The C functions of products with constant matrices: weights of 32, 8 or 4 bits, inputs of 32, 16 or 8.

Rows of weights are multiplied with one input vector, by the inner loops of `inner_products`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from exporters.c_code.inner_products import ACLE, BLOCK, FLOATS, QUANTISE, WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping

Activations = Literal["float32", "int16", "int8"]

_MOST = """
/* The largest whole number of 16 bits with which a sum of n products with 127 fits into 32 bits. */
static int32_t k_most(int n)
{
    const int32_t fits = INT32_MAX / 127 / n;
    return (fits < 32767) ? fits : 32767;
}
"""
_BLOCK_SUMS = """
/* z[g] = 8 times the sum of the whole numbers of block g: what weights that are stored + 8 give too much. */
static void k_block_sums(int32_t *z, const int16_t *q, int n)
{
    for (int k = 0; k < n; k += BLOCK) {
        const int end = (n - k < BLOCK) ? n : k + BLOCK;
        int32_t sum = 0;
        for (int i = k; i < end; ++i) {
            sum += q[i];
        }
        z[k / BLOCK] = 8 * sum;
    }
}
"""
_ROWS = """
/* y[m][r] = w[r] . x[m] + b[r] + a[m][r]; w has one row of n weights for each of the r outputs.
   b and a may be NULL, and a may be y.SCALED */
static void k_rows_NAME(PARAMETERS, const float *b,
                        const float *a, int m, int r, int n)
{
    for (int i = 0; i < m; ++i) {
        const float *const in = x + i * n;
BEFORE        for (int j = 0; j < r; LOOP
        }
    }
}
"""
_RESULT = """\
y[i * r + ROW] = RESULT + ((b != NULL) ? b[ROW] : 0.0f)
                + ((a != NULL) ? a[i * r + ROW] : 0.0f);"""
_PAIRS = """j += 2) {
            const int next = (j + 1 < r) ? 1 : 0; /* of an odd number, the last row is its own neighbour */
            KIND s[2];
            k_pair_NAME(s, w + j * n, w + (j + next) * n, SOURCE, n);
            FIRST
            if (next != 0) { /* no loop of two: gcc 12 -O3 runs past its end */
                SECOND
            }"""
_ONE_BY_ONE = """++j) {
            const uint8_t *const row = w + j * ((n + 7) / 8 * 4);
            ALONE"""
_ENDS: Final[Mapping[Activations, str]] = {"float32": "", "int16": "_x16", "int8": "_x8"}
_SCALED: Final = {
    32: "",
    8: " A weight is scale * w.",
    4: f" A weight is scale * (w - 8), a scale for {BLOCK} of them.",
}
_WEIGHTS: Final = {
    32: "const float *w",
    8: "const int8_t *w, const float *scale",
    4: "const uint8_t *w, const float *scale",
}


def rows_function(bits: int, activations: Activations) -> str:
    """Name of the function for rows of weights of 32, 8 or 4 bits."""
    return "rows" if bits == 32 else f"rows_int{bits}{_ENDS[activations]}"


def held(bits: int, activations: Activations) -> str:
    """The C type of the whole numbers that inputs become; empty if they stay floats."""
    if bits == 32 or activations == "float32":
        return ""
    return "int8_t" if (bits, activations) == (8, "int8") else "int16_t"


def row_bytes(columns: int) -> int:
    """Bytes of a row of weights of 4 bits; a row ends with a whole word."""
    return 4 * -(-columns // 8)


def room(columns: int, bits: int) -> int:
    """How many whole numbers the inputs of a product are: with weights of 4 bits, zeros fill the last word."""
    return 2 * row_bytes(columns) if bits == 4 else columns


def _result(row: str, product: str) -> str:
    """The statement that stores one output."""
    return _RESULT.replace("ROW", row).replace("RESULT", product)


def _rows(bits: int, activations: Activations) -> str:
    whole, name = held(bits, activations), rows_function(bits, activations).removeprefix("rows")
    sums = "int32_t *z, " if bits == 4 and whole else ""
    parameters = f"float *y, const float *x, {f'{whole} *q, {sums}' if whole else ''}{_WEIGHTS[bits]}"
    unit = "unit * " if whole else ""
    if bits == 4:
        end, inputs = ("_whole", "q, z") if whole else ("", "in")
        sum_ = f"{unit}k_row_int4{end}(row, scale + j * ((n + BLOCK - 1) / BLOCK), {inputs}, n)"
        loop = _ONE_BY_ONE.replace("ALONE", _result("j", sum_))
    else:
        loop = _PAIRS.replace("KIND", "int32_t" if whole else "float").replace("SOURCE", "q" if whole else "in")
        for place, row, index in (("FIRST", "j", 0), ("SECOND", "j + 1", 1)):
            scale = f"scale[{row}] * " if bits == 8 else ""
            loop = loop.replace(place, _result(row, f"{scale}{unit}{'(float)' if whole else ''}s[{index}]"))
    text = _ROWS.replace("LOOP", loop)
    text = text.replace("PARAMETERS", parameters).replace("BEFORE", _before(bits, activations))
    return text.replace("SCALED", _SCALED[bits]).replace("_NAME", name).replace("BLOCK", str(BLOCK))


def _before(bits: int, activations: Activations) -> str:
    """The lines that make whole numbers of the inputs."""
    whole = held(bits, activations)
    if not whole:
        return ""
    most = "127" if activations == "int8" else "k_most(n)" if bits == 8 else "32767"
    all_ = "(n + 7) / 8 * 8" if bits == 4 else "n"
    line = f"        const float unit = k_quantise_{'x8' if whole == 'int8_t' else 'x16'}(q, in, n, {all_}, {most});\n"
    return line + ("        k_block_sums(z, q, (n + 7) / 8 * 8);\n" if bits == 4 else "")


def _all() -> dict[str, str]:
    texts = {"acle": ACLE, "most": _MOST, "block_sums": _BLOCK_SUMS.replace("BLOCK", str(BLOCK)), **QUANTISE}
    texts |= {name: text.replace("BLOCK", str(BLOCK)) for name, text in {**FLOATS, **WHOLE}.items()}
    kinds: list[tuple[int, Activations]] = [(32, "float32")]
    kinds += [(bits, activations) for bits in (8, 4) for activations in _ENDS]
    return texts | {rows_function(*kind): _rows(*kind) for kind in kinds}


PRODUCTS: Final[Mapping[str, str]] = _all()
"""Name -> C; each calls only functions before it."""
