"""Runs ONNX files in another Python: an emulated one or a phone's. Nothing of this package is needed there.

    python remote_script.py outputs JOBS.json
        JOBS.json holds [{"model": path, "inputs": path, "outputs": path}, ...]: the arrays in each .npz of inputs, in
        order, are given to the model, and what it gives is written as .npz; or what it says, to the path with `.error`
        behind it. A job whose result is there already is passed over.
    python remote_script.py time MODEL INPUTS.npz THREADS WARM_UP RUNS
        Prints the milliseconds of each timed run.

Both print JSON as their last line, in which the machine and the runtime are named.
"""

import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime


def main() -> None:
    """Do what the arguments say."""
    what, *rest = sys.argv[1:]
    facts: dict[str, object] = {
        "machine": platform.machine(),
        "runtime": f"ONNX Runtime {onnxruntime.__version__}, CPU",
    }
    if what == "outputs":
        for job in json.loads(Path(rest[0]).read_text()):
            outputs(job["model"], job["inputs"], Path(job["outputs"]))
    else:
        model, inputs, threads, warmup, runs = rest
        facts["ms"] = timed(model, inputs, int(threads), int(warmup), int(runs))
    print(json.dumps(facts))


def outputs(model: str, inputs: str, path: Path) -> None:
    """Write what a model gives."""
    error = path.with_name(path.name + ".error")
    if path.exists() or error.exists():
        return
    print(f"running {model}", file=sys.stderr, flush=True)
    try:
        session, feed = opened(model, inputs, 1)
        found = session.run(None, feed)
    except Exception as failed:  # ONNX Runtime's exceptions have no common base
        error.write_text((str(failed).strip().splitlines() or [type(failed).__name__])[0])
        return
    part = path.with_name("part.npz")
    np.savez(part, *found)
    part.replace(path)


def timed(model: str, inputs: str, threads: int, warmup: int, runs: int) -> list[float]:
    """Milliseconds of each timed run."""
    session, feed = opened(model, inputs, threads)
    for _ in range(warmup):
        session.run(None, feed)
    found = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run(None, feed)
        found.append((time.perf_counter_ns() - start) / 1e6)
    return found


def opened(model: str, inputs: str, threads: int) -> "tuple[onnxruntime.InferenceSession, dict[str, np.ndarray]]":
    """A session and what it is given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    with np.load(inputs) as arrays:
        given = [arrays[name] for name in arrays.files]
    return session, {item.name: array for item, array in zip(session.get_inputs(), given, strict=True)}


if __name__ == "__main__":
    main()
