"""Compiles programs of `use/`, with a `main` around each that feeds it the calls of its example."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime

from compressor.render.programs import TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CXX = shutil.which("c++") or shutil.which("g++")
_DRIVER = """
#define main program_main
#include "STEM.cpp"
#undef main

int main(int, char** arguments) {
  CLASS model(arguments[1]);
CALLS}
"""
_PRINT = """    for (auto& [name, value] : results) {
      std::printf("%s\\n", name.c_str());
      const size_t count = value.GetTensorTypeAndShapeInfo().GetElementCount();
      for (size_t place = 0; place < count; ++place) std::printf("%.9g ", value.GetTensorData<float>()[place]);
      std::printf("\\n");
    }
"""


@cache
def library() -> Path | None:
    """ONNX Runtime's library, of the installed wheel; None if the wheel has none beside its module."""
    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(sorted(folder.glob("libonnxruntime.so.*"))), None)


def built(use: Path, stem: str, work: Path, headers: Path) -> Path:
    """The C++ program with a `main` that runs its example, as an executable file."""
    example = json.loads((use / f"{stem}.example.json").read_text())
    shutil.copy(use / f"{stem}.cpp", work)
    kind, function = ("Stream", "step") if "class Stream" in (use / f"{stem}.cpp").read_text() else ("Model", "run")
    calls = "".join(f"  {{\n{_call(call, function)}  }}\n" for call in example["calls"])
    text = _DRIVER.replace("STEM", stem).replace("CLASS", kind).replace("CALLS", calls)
    (work / f"{stem}.driver.cpp").write_text(text)
    return compiled(work / f"{stem}.driver.cpp", headers)


def compiled(source: Path, headers: Path) -> Path:
    """A C++ file as a program; warnings are errors."""
    found = library()
    assert found is not None
    own = source.parent / "libonnxruntime.so.1"
    if not own.exists():
        own.symlink_to(found)
    command = ["c++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-isystem", str(headers), str(source),
               str(own), f"-Wl,-rpath,{source.parent}", "-o", str(source.with_suffix(""))]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return source.with_suffix("")


def printed(program: Path, file: Path) -> list[dict[str, list[float]]]:
    """What each call gave, by name."""
    said = subprocess.run([str(program), str(file)], capture_output=True, text=True, check=True).stdout.splitlines()
    calls: list[dict[str, list[float]]] = []
    for name, numbers in zip(said[::2], said[1::2], strict=True):
        if not calls or name in calls[-1]:
            calls.append({})
        calls[-1][name] = [float(number) for number in numbers.split()]
    return calls


def largest_difference(given: Sequence[Mapping[str, Sequence[float]]], example: Mapping[str, Any]) -> float:
    """Over all calls and outputs of an example."""
    return max(
        abs(ours - right)
        for call, outputs in zip(example["calls"], given, strict=True)
        for name, value in call["outputs"].items()
        for ours, right in zip(outputs[name], value["data"], strict=True)
    )


def _call(call: Mapping[str, Any], function: str) -> str:
    text = "    Tensors inputs;\n"
    for index, (name, value) in enumerate(call["inputs"].items()):
        data, shape = (", ".join(map(str, value[key])) for key in ("data", "shape"))
        text += f"    Numbers<{TYPES[value['dtype']]['cpp']}> input_{index}{{ {{ {data} }}, {{ {shape} }} }};\n"
        text += f"    inputs.emplace({json.dumps(name)}, input_{index}.tensor());\n"
    return f"{text}    auto results = model.{function}(std::move(inputs));\n{_PRINT}"
