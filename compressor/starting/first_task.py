"""Writes a task and a recipe for a model, and tries them before they get their names."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compressor import recipe as recipes
from compressor.errors import OutputError, UsageError
from compressor.files import write_all, writing
from compressor.pipeline.dry_run import try_out
from compressor.progress import Progress, Silent
from compressor.starting import arguments, first_recipe, source
from compressor.starting.task_text import class_name, task_text
from compressor.task.loading import load
from compressor.task.weights import load_weights

if TYPE_CHECKING:
    from compressor.task.guard import GuardedTask

_SILENT = Silent()


@dataclass(frozen=True)
class FirstTask:
    """What was written."""

    task: Path
    recipe: Path
    what: str
    """What the recipe does, in a few words."""
    example: str
    """What `example` gives, as text."""
    parameters: int
    random: bool
    """Whether the weights are random: there is no checkpoint."""


def write(
    spec: str,
    path: Path,
    *,
    checkpoint: Path | None = None,
    example: str | None = None,
    force: bool = False,
    progress: Progress = _SILENT,
) -> FirstTask:
    """Write the task to `path`, and the recipe beside it as `recipe.yaml`.

    Args:
        spec: The model: FILE.py, FILE.py:NAME, package.module:NAME, or a Hugging Face folder.
        path: The task file.
        checkpoint: Weights that are loaded into it.
        example: What `example` returns, as Python text in `batch` and `length`; found by calling the model if left out.
        force: Replace files that are there.
        progress: Told what goes on.

    Raises:
        CompressorError: There is no such model, it takes nothing that was tried, or a file is there already.
    """
    beside = path.with_name("recipe.yaml" if path.stem == "task" else f"{path.stem}.yaml")
    _refuse(path, beside, checkpoint, force=force)
    found = source.find(spec, has_weights=checkpoint is not None)
    model = found.build()
    if checkpoint is not None:
        load_weights(model, checkpoint.resolve())
    taken = arguments.find(model, progress, example)
    command = f"compressor init {spec}" + (f" --checkpoint {checkpoint}" if checkpoint else "")
    text = task_text(command, found, taken, path, checkpoint)
    progress.say("trying the task")
    task = _tried(text, path)
    plain = task.model()
    words, what = first_recipe.recipe(
        class_name(found).removesuffix("Task").lower(), plain, task.example(2, task.length), progress
    )
    write_all({path: text.encode(), beside: words.encode()})
    recipes.load(str(beside), ())
    parameters = sum(part.numel() for part in plain.parameters())
    return FirstTask(path, beside, what, taken.text, parameters, found.seeded)


def _refuse(path: Path, beside: Path, checkpoint: Path | None, *, force: bool) -> None:
    if path.suffix != ".py":
        raise UsageError(f"{path} is not a Python file", hint="give --out task.py")
    if checkpoint is not None and not checkpoint.exists():
        raise UsageError(f"no checkpoint at {checkpoint}", hint="give --checkpoint FILE")
    for target in (path, beside):
        if target.exists() and not force:
            raise OutputError(f"`{target}` exists", hint="give another --out, or --force to replace it")


def _tried(text: str, path: Path) -> GuardedTask:
    """The task of this text, after a dry run; the file lies beside its place and is gone again."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix="first_", suffix=".py", text=True)
    file = Path(name)
    try:
        os.close(handle)
        file.write_text(text, encoding="utf-8")
        task = load(name)
        try_out(task, task.model(), torch.device("cpu"), trains=False)
    finally:
        file.unlink()
    return task
