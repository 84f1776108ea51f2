"""The text of a first task."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.starting.arguments import Arguments
    from compressor.starting.source import Source


def class_name(source: Source) -> str:
    """Of the task."""
    name = re.sub(r"\W", "", source.name) or "Model"
    return f"{name[0].upper()}{name[1:]}Task"


def task_text(command: str, source: Source, arguments: Arguments, path: Path, checkpoint: Path | None) -> str:
    """A whole task file.

    Args:
        command: That writes it.
        source: Builds the model.
        arguments: What the model takes.
        path: Where the file goes; other paths in it are relative to its folder.
        checkpoint: Weights for the model.
    """
    torch_needed = source.seeded or "torch." in arguments.text
    sizes = ["self", "batch", "length", *(f"{name}={size}" for name, size in arguments.further.items())]
    lines = [f'"""Written by `{command}`. It runs as it is; each TODO makes its numbers mean more."""', ""]
    lines += _imports(source, path, torch_needed=torch_needed, has_weights=checkpoint is not None)
    lines += ["", "", f"class {class_name(source)}(UnlabelledTask):"]
    lines += [
        f"    length = {arguments.length}  # TODO: a typical length",
        f"    min_length, max_length = {arguments.min_length}, {arguments.max_length}  # found by calling the model",
        "",
        *_model(source, path, checkpoint),
        "",
        f"    def example({', '.join(sizes)}):  # TODO: values as they are in use",
        f"        return {arguments.text}",
        "",
        *_COMMENTS,
    ]
    return "\n".join(lines) + "\n"


def _imports(source: Source, path: Path, *, torch_needed: bool, has_weights: bool) -> list[str]:
    lines = [line for line in source.lines if line.startswith("from pathlib")]
    other = [line for line in source.lines if line not in lines]
    folder = path.resolve().parent
    if not source.folder or "FOLDER" in source.expression or source.folder == folder:
        before = []
    else:
        before = ["import sys", "from pathlib import Path", ""]
        here = _relative(source.folder, folder)
        before += [f'sys.path.insert(0, str(Path(__file__).parent / "{here}"))  # where the model is', ""]
    names = "UnlabelledTask, load_weights" if has_weights else "UnlabelledTask"
    ours = ["import torch"] if torch_needed else []
    ours += [f"from compressor import {names}", *other]
    return [*before, *lines, *([""] if lines else []), *ours]


def _model(source: Source, path: Path, checkpoint: Path | None) -> list[str]:
    folder = path.resolve().parent
    expression = source.expression
    if "FOLDER" in expression and source.folder is not None:
        here = f'Path(__file__).parent / "{_relative(source.folder.resolve(), folder)}"'
        expression = expression.replace("FOLDER", here)
    if checkpoint is not None:
        text = f'return load_weights({expression}, "{_relative(checkpoint.resolve(), folder)}")'
        return ["    def model(self):", f"        {text}"]
    if source.seeded:
        return [
            '    def model(self):  # TODO: the trained weights: load_weights(..., "weights.pt"); these are random',
            "        torch.manual_seed(0)",
            f"        return {expression}",
        ]
    return ["    def model(self):", f"        return {expression}"]


def _relative(target: Path, folder: Path) -> str:
    return os.path.relpath(target, folder).replace(os.sep, "/")


_COMMENTS = [
    "    # TODO: real inputs, each as `example` gives them; without them, examples are used.",
    "    # def samples(self, generator):  # to learn from; shuffle with `generator`",
    "    #     yield inputs",
    "    #",
    "    # def held_out(self):  # to measure on",
    "    #     return [inputs]",
    "",
    "    # TODO: your metric, one score per sample; without it, fidelity to the original's outputs is measured.",
    '    # metric, higher_is_better, remark = "accuracy", True, ""',
    "    #",
    "    # def evaluate(self, forward):  # the model or an exported file, called as the model",
    "    #     return (forward(inputs).argmax(-1) == labels).float()",
]
