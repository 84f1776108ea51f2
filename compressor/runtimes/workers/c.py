"""C that the exporter wrote: compiled by this machine's compiler, called through its public functions."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

_COMPILERS = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
_COMPILER = next(filter(None, map(shutil.which, _COMPILERS)), None)
_KINDS = {"float": np.float32, "int32_t": np.int32}
_SECONDS = 300


def _version():
    if _COMPILER is None:
        return "C"
    said = subprocess.run([_COMPILER, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return f"C compiled by {(said.splitlines() or [_COMPILER])[0]} -O3, {platform.machine()}"


VERSION = _version()


class File:
    """A compiled model; its states are handed in and out as arrays, and live in its struct during a call."""

    def __init__(self, path, threads, description):
        if _COMPILER is None:
            raise RuntimeError("there is no C compiler; install gcc or clang, or name one in CC")
        self._about = json.loads(description["details"]["c"])
        self._names = [item["name"] for item in description["inputs"]]
        self._results = [(item["name"], item["dtype"]) for item in description["outputs"]]
        stream = json.loads(description["metadata"].get("compressor.stream", "{}"))
        self._next = {state["name"]: state["next_name"] for state in stream.get("states", [])}
        self._folder = tempfile.TemporaryDirectory()
        target = Path(self._folder.name) / "model.so"
        command = [_COMPILER, "-std=c99", "-O3", "-shared", "-fPIC", "-o", str(target), str(path), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"{_COMPILER}: {done.stderr.strip()[:600]}")
        library = ctypes.CDLL(str(target))
        self._init, self._step = (getattr(library, self._about[word]) for word in ("init", "call"))
        self._init.restype = self._step.restype = None
        self._struct = np.zeros(self._about["bytes"] // 4 + 4, np.float32)
        self._states, start = {}, 0
        for name, kind, shape in self._about["states"]:
            count = int(np.prod(shape, dtype=np.int64))
            self._states[name] = self._struct[start : start + count].view(_KINDS[kind]).reshape(shape)
            start += count
        self._outputs = {name: np.zeros(shape, _KINDS[kind]) for name, kind, shape in self._about["outputs"]}

    def run(self, arrays):
        given = dict(zip(self._names, arrays, strict=True))
        self._init(_pointer(self._struct))
        for name, state in self._states.items():
            state[...] = given[name]
        inputs = [
            np.ascontiguousarray(given[name], _KINDS[kind]).reshape(shape)
            for name, kind, shape in self._about["inputs"]
        ]
        self._step(_pointer(self._struct), *map(_pointer, [*inputs, *self._outputs.values()]))
        results = {**self._outputs, **{self._next[name]: state for name, state in self._states.items()}}
        return [results[name].astype(dtype, copy=True) for name, dtype in self._results]


def _pointer(array):
    return ctypes.c_void_p(array.ctypes.data)
