"""Whether a run goes on with the journal that it finds, begins anew, or has to be told which."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from compressor import checkpoint
from compressor.errors import OutputError
from compressor.files import json_object, read_text, write_whole, writing
from compressor.files.staged import LOG_FILE, remove_all
from compressor.pipeline import fingerprints
from compressor.pipeline.folder import differences
from compressor.pipeline.journal import FOLDER
from compressor.report import Conditions

if TYPE_CHECKING:
    from torch import nn

    from compressor.pipeline.setting import Setting

_RUN_FILE = "run.json"
_SHOWN = 5
"""Differences that an error lists."""


def conditions(run: Setting, model: nn.Module) -> Conditions:
    """What the numbers of this run follow from, besides its recipe; the task was tried before."""
    return Conditions(
        device=run.device.type,
        threads=run.threads,
        torch_threads=torch.get_num_threads(),
        processes=run.team.size,
        probes=run.probes,
        quick=run.quick,
        fingerprints=fingerprints.fingerprints(run.task, model, run.real),
    )


def begin(run: Setting, now: Conditions, *, restart: bool) -> None:
    """Go on with what the folder's journal holds, or begin anew; says which.

    Raises:
        OutputError: The journal is that of another run, which may not be replaced; the message says what differs.
    """
    folder = run.folder.staging / FOLDER
    found = None if restart or run.journal.is_empty else _read(run)
    if found is not None and found[1].quick and not now.quick:
        found = None  # a rehearsal is not worth keeping
    if found is not None and (changed := _changes(run, *found, now)):
        if not run.folder.force:
            raise _other_conditions(run, changed)
        found = None
    run.journal.is_own = True
    if found is None:
        run.journal.clear(keep=LOG_FILE)
    else:
        _go_on(run)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    facts = {"recipe": run.recipe.resolved(), "conditions": now.model_dump(mode="json")}
    write_whole(folder / _RUN_FILE, (json.dumps(facts, indent=2) + "\n").encode())


def _read(run: Setting) -> tuple[dict[str, Any], Conditions]:
    path = run.folder.staging / FOLDER / _RUN_FILE
    try:
        facts = json_object(read_text(path, OutputError)) or {}
        return dict(facts["recipe"]), Conditions.model_validate(facts["conditions"])
    except (OutputError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read", hint="begin anew with --restart") from error


def _changes(run: Setting, recipe: dict[str, Any], before: Conditions, now: Conditions) -> list[str]:
    """Under which other conditions the journal was made, one line each; its parts would not fit this run."""
    changed = differences(recipe, run.recipe.resolved())
    for name in ("quick", "device", "threads", "torch_threads", "processes", "probes"):
        if getattr(before, name) != getattr(now, name):
            changed.append(f"{name.replace('_', ' ')} is {getattr(before, name)} there and {getattr(now, name)} now")
    return changed + fingerprints.changes(before.fingerprints, now.fingerprints, run.task.file)


def _other_conditions(run: Setting, changed: list[str]) -> OutputError:
    more = [f"and {len(changed) - _SHOWN} more"] if len(changed) > _SHOWN else []
    return OutputError(
        f"{run.folder.out} holds an unfinished run under other conditions:\n"
        + "\n".join(f"  {line}" for line in [*changed[:_SHOWN], *more]),
        hint="put that back to go on with it, choose another --out, or begin anew with --restart",
    )


def _go_on(run: Setting) -> None:
    """Remove what belongs to no finished part, and say what is not done again."""
    journal, staging = run.journal, run.folder.staging
    kept = {FOLDER, LOG_FILE, checkpoint.WEIGHTS_FILE, checkpoint.RECORD_FILE, *journal.files()}
    with writing(staging):
        for path in staging.iterdir():
            if path.name not in kept:
                remove_all(path)
    run.progress.say(f"going on with the unfinished run in {run.folder.out}; done before: {', '.join(journal.names())}")
