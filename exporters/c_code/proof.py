"""The proof that goes with generated C: a few calls with what they gave here, as data and as a test for the board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.runtimes.microcontroller.program import Call
from compressor.runtimes.microcontroller.proof import Proof
from exporters.c_code.elementwise import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from compressor.formats import Job
    from exporters.c_code.sources import Sources

_STEPS = 8
_SEQUENCES = 2
_EXACT, _ROUNDED = 1e-5, 2e-2
"""In parts of the largest output. Libraries of C differ in the last bits of exp and tanh; where activations are rounded
to integers, a last bit may become a step."""


def proof_of(job: Job[Any], code: Path, *, rounds: bool) -> Proof:
    """What the compiled code gives on an example of the task.

    Args:
        job: The export.
        code: The file, with its description beside it.
        rounds: Whether activations are rounded to integers.
    """
    import torch

    from compressor.runtimes.forward import open_forward
    from compressor.runtimes.steps import Steps

    forward = open_forward(code, job.task)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(job.seed)
            run = _steps(forward, job) if isinstance(forward, Steps) else _sequences(forward, job)
            pairs = list(run)
    finally:
        forward.close()
    largest = max((float(np.abs(part).max(initial=0.0)) for _, parts in pairs for part in parts), default=0.0)
    part = _ROUNDED if rounds else _EXACT
    return Proof([call for call, _ in pairs], [outputs for _, outputs in pairs], part * max(largest, 1e-3))


_Pair = tuple[Call, "list[NDArray[Any]]"]


def _steps(forward: Any, job: Job[Any]) -> Iterator[_Pair]:
    from compressor.runtimes.steps import initial_state

    chunk = forward.info.chunk
    length = max(job.task.min_length, min(job.task.max_length, _STEPS * chunk))
    example = job.task.example(1, length)
    states: Sequence[Tensor] = [initial_state(state, 1) for state in forward.info.states]
    for start in range(0, length, chunk):
        inputs = forward.file.cast(forward.step_inputs(example, start, length))
        results = _flat(forward.file(*inputs, *states))
        outputs, states = results[: len(forward.info.outputs)], results[len(forward.info.outputs) :]
        yield Call(_arrays(inputs), reset=start == 0), _arrays(outputs)


def _sequences(forward: Any, job: Job[Any]) -> Iterator[_Pair]:
    for _ in range(_SEQUENCES):
        inputs = job.task.example(1, job.options.length)
        call = forward.one_call(inputs)
        yield Call(_arrays(call), reset=True), _arrays(_flat(forward(*inputs)))


def _flat(results: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return results if isinstance(results, tuple) else (results,)


def _arrays(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
    return [array.astype(np.float32 if array.dtype.kind == "f" else np.int32) for array in arrays]


def header(written: Sources, proof: Proof) -> str:
    """`model_proof()`, which repeats the calls on a board and counts the outputs that are off."""
    name, upper = written.name, written.name.upper()
    arrays, reset = [], ", ".join(str(int(call.reset)) for call in proof.calls)
    checks: list[str] = []
    for place, item in enumerate(written.inputs):
        arrays.append(_array(f"{name}_proof_{item.name}", item.kind, [call.inputs[place] for call in proof.calls]))
    for place, item in enumerate(written.outputs):
        arrays.append(_array(f"{name}_proof_{item.name}", item.kind, [parts[place] for parts in proof.outputs]))
        wanted = f"{name}_proof_{item.name}[t * {item.size} + i]"
        checks.append(
            f"        for (int i = 0; i < {item.size}; ++i) {{\n"
            f"            const float off = (float){item.name}[i] - (float){wanted};\n"
            f"            wrong += (off >= -{upper}_PROOF_ATOL && off <= {upper}_PROOF_ATOL) ? 0 : 1;\n        }}\n"
        )
    outputs = "".join(f"    static {item.kind} {item.name}[{max(item.size, 1)}];\n" for item in written.outputs)
    arguments = [f"&{name}_proof_{item.name}[t * {item.size}]" for item in written.inputs]
    arguments += [item.name for item in written.outputs]
    return (
        f"/* Repeats {len(proof.calls)} call(s) on your board: include it in one file of a test, and `{name}_proof()`\n"
        f"   gives how many outputs are further off than {upper}_PROOF_ATOL from those of the machine that\n"
        f"   compared them with PyTorch; 0 is right. */\n#ifndef {upper}_PROOF_H\n#define {upper}_PROOF_H\n\n"
        f'#include "{written.header_name}"\n\n'
        f"#define {upper}_PROOF_CALLS {len(proof.calls)}\n#define {upper}_PROOF_ATOL {number(proof.atol)}\n\n"
        f"static const unsigned char {name}_proof_resets[{len(proof.calls)}] = {{{reset}}};\n{''.join(arrays)}\n"
        f"static int {name}_proof(void)\n{{\n    static {name}_state s;\n{outputs}    int wrong = 0;\n"
        f"    for (int t = 0; t < {upper}_PROOF_CALLS; ++t) {{\n"
        f"        if ({name}_proof_resets[t] != 0) {{\n            {name}_init(&s);\n        }}\n"
        f"        {written.call}({', '.join(['&s', *arguments])});\n{''.join(checks)}    }}\n    return wrong;\n}}\n\n"
        "#endif\n"
    )


def _array(name: str, kind: str, parts: Sequence[NDArray[Any]]) -> str:
    flat = np.concatenate([part.ravel() for part in parts])
    texts = [number(value) if kind == "float" else str(value) for value in flat.tolist()]
    rows = [", ".join(texts[start : start + 8]) for start in range(0, len(texts), 8)]
    return f"static const {kind} {name}[{len(texts)}] = {{\n" + "".join(f"    {row},\n" for row in rows) + "};\n"
