"""Generated C against C that a person wrote for the same model, on one core of this machine.

    python benchmarks/hand_written_c.py --battery soc_model_legacy.onnx --theirs option1_c [--rounds 60]

The model is the public two-layer LSTM of `benchmarks/battery.py`, a whole sequence of ten steps a call. `--theirs` is
the folder of the hand-written C in a copy of the public repository aturevsk/SOC_model (its Makefile compiles with gcc
-O2); it is compiled from there, and nothing of it is copied. Without it the generated code is compared with plain code
of our own: one loop for each product and `math.h`. All libraries are loaded into this process and called in turn, 50
calls a round, in an order that is drawn anew for each round; a ratio is the median over rounds with its 95 % interval.
Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.battery import FEATURES, STEPS, UNITS, BatteryTask, battery  # noqa: E402
from compressor.formats import EXPORTERS, Job  # noqa: E402
from compressor.measure.statistics import speed_up  # noqa: E402
from compressor.runtimes import c_compiler  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

CALLS = 50
FORMS: dict[str, dict[str, Any]] = {
    "float": {},
    "float, math: fast": {"math": "fast"},
    "int8, inputs in 16 bits, math: fast": {"precision": "int8", "activations": "int16", "math": "fast"},
    "int8, inputs in 8 bits, math: fast": {"precision": "int8", "activations": "int8", "math": "fast"},
}
PLAIN = """
#include <math.h>
#include <string.h>
#define H {units}
static const float *w[2], *r[2], *b[2], *w1, *b1, *w2, *b2;
static int in_size[2] = {{{features}, H}};
void set(int which, const float *at)
{{
    const float **all[10] = {{&w[0], &r[0], &b[0], &w[1], &r[1], &b[1], &w1, &b1, &w2, &b2}};
    *all[which] = at;
}}
static float sigmoid(float x) {{ return 1.0f / (1.0f + expf(-x)); }}
static void add(float *y, const float *m, const float *x, int rows, int columns)
{{
    for (int i = 0; i < rows; i++) {{
        float sum = 0.0f;
        for (int j = 0; j < columns; j++) sum += m[i * columns + j] * x[j];
        y[i] += sum;
    }}
}}
void run(const float *x, float *y)
{{
    static float h[2][H], c[2][H];
    float g[4 * H], hidden[H];
    memset(h, 0, sizeof h);
    memset(c, 0, sizeof c);
    for (int t = 0; t < {steps}; t++) {{
        for (int l = 0; l < 2; l++) {{
            memcpy(g, b[l], sizeof g);
            add(g, w[l], l == 0 ? x + t * {features} : h[0], 4 * H, in_size[l]);
            add(g, r[l], h[l], 4 * H, H);
            for (int k = 0; k < H; k++) {{
                c[l][k] = sigmoid(g[H + k]) * c[l][k] + sigmoid(g[k]) * tanhf(g[2 * H + k]);
                h[l][k] = sigmoid(g[3 * H + k]) * tanhf(c[l][k]);
            }}
        }}
    }}
    memcpy(hidden, b1, sizeof hidden);
    add(hidden, w1, h[1], H, H);
    for (int k = 0; k < H; k++) hidden[k] = hidden[k] > 0.0f ? hidden[k] : 0.0f;
    y[0] = b2[0];
    add(y, w2, hidden, 1, H);
}}
"""


def main() -> None:
    """Print one line a form, for each set of flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battery", type=Path, help="the public model's soc_model_legacy.onnx")
    parser.add_argument("--theirs", type=Path, help="the folder of soc_model.c; needs --battery")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--flags", action="append", help="-O2 and -O3 by default")
    options = parser.parse_args()
    if options.theirs and not options.battery:
        parser.error("--theirs has the weights of the public file: name it with --battery")
    model = battery(options.battery)
    x = np.random.default_rng(0).standard_normal((STEPS, FEATURES)).astype(np.float32)
    for flags in options.flags or ["-O2", "-O3"]:
        with tempfile.TemporaryDirectory() as place:
            compared(model, x, Path(place), flags, options)


def compared(model: nn.Module, x: Any, folder: Path, flags: str, options: argparse.Namespace) -> None:
    """Print how fast each form is with these flags."""
    person = "theirs" if options.theirs else "plain"
    calls = {person: hand_written(options.theirs, folder, flags) if options.theirs else plain(model, folder, flags)}
    calls |= {form: generated(model, folder, form, settings, flags) for form, settings in FORMS.items()}
    wanted = float(model(torch.from_numpy(x)[None]).detach())
    results = {name: call(x) for name, call in calls.items()}
    assert abs(results[person] - wanted) < 1e-4, (results, wanted)
    assert all(abs(result - wanted) < 0.02 for result in results.values()), (results, wanted)
    times = timed(calls, x, options.rounds)
    version = subprocess.run([c_compiler.find(), "-dumpfullversion"], check=True, capture_output=True, text=True).stdout
    microseconds = 1e6 * float(np.median(times[person]))
    print(f"{Path(c_compiler.find()).name} {version.strip()} {flags}: {person} takes {microseconds:.1f} us a sequence")
    for name in FORMS:
        found = speed_up(times[person], times[name])
        low, high = found.interval.low, found.interval.high
        off = abs(results[name] - wanted)
        print(f"    {name}: {found.ratio:.2f}x as fast ({low:.2f} to {high:.2f}), {off:.1e} off", flush=True)


def timed(calls: dict[str, Callable[[Any], float]], x: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds a call of each, one number a round."""
    draw, times = random.Random(0), {name: [] for name in calls}
    for _ in range(rounds):
        for name in draw.sample(list(calls), len(calls)):
            call = calls[name]
            call(x)
            start = time.perf_counter()
            for _ in range(CALLS):
                call(x)
            times[name].append((time.perf_counter() - start) / CALLS)
    return times


def hand_written(theirs: Path, folder: Path, flags: str) -> Callable[[Any], float]:
    """The public code with its own weights."""
    library = _library(theirs / "soc_model.c", flags, folder / "theirs.so")
    library.soc_model_predict.restype = ctypes.c_float
    return lambda x: float(library.soc_model_predict(ctypes.c_void_p(x.ctypes.data)))


def plain(model: nn.Module, folder: Path, flags: str) -> Callable[[Any], float]:
    """The plain code with the model's weights."""
    path = folder / "plain.c"
    path.write_text(PLAIN.format(units=UNITS, features=FEATURES, steps=STEPS))
    library = _library(path, flags)
    state = {name: part.detach().numpy() for name, part in model.state_dict().items()}
    order = []
    for layer in range(2):
        bias = state[f"rnn.bias_ih_l{layer}"] + state[f"rnn.bias_hh_l{layer}"]
        order += [state[f"rnn.weight_ih_l{layer}"], state[f"rnn.weight_hh_l{layer}"], bias]
    order += [state[f"{name}.{end}"] for name in ("first", "last") for end in ("weight", "bias")]
    kept = [np.ascontiguousarray(part, np.float32) for part in order]
    for which, part in enumerate(kept):
        library.set(which, ctypes.c_void_p(part.ctypes.data))
    y = np.zeros(1, np.float32)

    def call(x: Any, kept: Any = kept) -> float:
        library.run(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data))
        return float(y[0])

    return call


def generated(
    model: nn.Module, folder: Path, form: str, settings: dict[str, Any], flags: str
) -> Callable[[Any], float]:
    """The exporter's code for whole sequences."""
    more = {"quantized_error": 0.5} if settings.get("precision") else {}
    name = f"m{len(list(folder.glob('*.so')))}"
    settings = {"form": "sequence", "length": STEPS, "name": name, **settings, **more}
    options = EXPORTERS["c"].options.model_validate(settings)
    path = folder / options.file_name()
    EXPORTERS["c"].export(Job(model, BatteryTask(model), path, options))
    about = json.loads(json.loads(path.with_name(f"{path.name}.json").read_text())["details"]["c"])
    library = _library(path, flags)
    state, y = np.zeros(about["bytes"] // 4 + 1, np.float32), np.zeros(1, np.float32)
    function = getattr(library, about["call"])

    def call(x: Any) -> float:
        function(*(ctypes.c_void_p(part.ctypes.data) for part in (state, x, y)))
        return float(y[0])

    return call


def _library(path: Path, flags: str, target: Path | None = None) -> ctypes.CDLL:
    target = target or path.with_suffix(".so")
    command = [c_compiler.find(), "-std=c99", *flags.split(), "-shared", "-fPIC", "-o", str(target), str(path), "-lm"]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(target))


if __name__ == "__main__":
    main()
