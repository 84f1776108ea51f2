"""The weights and the record of a compressed model in a run folder: no pickle, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import CheckpointError
from compressor.files import json_object, read_text, write_whole
from compressor.files.staged import settle
from compressor.task.checkpoint_file import read_safetensors
from compressor.task.signature import with_own_forward
from compressor.task.weights import check_fit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from compressor.task.contract import Task

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "model.json"
RECORD_VERSION = 1
_AGAIN = "run the recipe again"


def load(folder: str | Path, task: Task) -> nn.Module:
    """Rebuild a compressed model from a run folder: the task's own class, resized, weights bit-equal; no pickle.

    It is called as the user's own model is, with all arguments that its `forward` takes.
    """
    settle(Path(folder))
    record = _read_record(Path(folder) / RECORD_FILE)
    weights = read_safetensors(_existing(Path(folder) / WEIGHTS_FILE))
    model = rebuilt(task, record["structure"], weights, record["aliases"], str(Path(folder) / WEIGHTS_FILE))
    return with_own_forward(model).eval()


def rebuilt(
    task: Task,
    structure: Sequence[Mapping[str, Any]],
    weights: Mapping[str, Tensor],
    aliases: Mapping[str, str],
    source: str,
) -> nn.Module:
    """A fresh model of the task with the structure and the weights of a compressed one.

    Raises:
        CheckpointError: They do not fit the task's model; the message names `source`.
    """
    from compressor.surgery.rebuild import rebuild

    model = rebuild(task.model(), structure, task.attention)
    state = dict(weights) | {alias: weights[name] for alias, name in aliases.items() if name in weights}
    check_fit(model.state_dict(), state, source)
    model.load_state_dict(state)
    return model


def save(folder: Path, model: nn.Module, structure: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Write `model.safetensors` and `model.json` into `folder`; gives their names.

    The record holds how to rebuild the structure in the user's own class, and which names share one tensor.
    """
    from safetensors.torch import save as to_bytes

    kept, aliases = weights_of(model)
    record = {"schema_version": RECORD_VERSION, "structure": list(structure), "aliases": aliases}
    write_whole(folder / WEIGHTS_FILE, to_bytes(kept))
    write_whole(folder / RECORD_FILE, (json.dumps(record, indent=2) + "\n").encode())
    return WEIGHTS_FILE, RECORD_FILE


def weights_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a model's state once, on the CPU, and for each further name of one its first name."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for name, value in model.state_dict().items():
        identity = (value.data_ptr(), tuple(value.shape), tuple(value.stride()))
        if value.numel() and identity in owners:
            aliases[name] = owners[identity]
        else:
            owners[identity] = name
            kept[name] = value.detach().cpu().contiguous().clone()
    return kept, aliases


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}", hint="check the path in the task file")
    return path


def _read_record(path: Path) -> dict[str, Any]:
    record = json_object(read_text(_existing(path), CheckpointError, hint=_AGAIN))
    if record is None or record.get("schema_version") != RECORD_VERSION:
        raise CheckpointError(f"{path} is not a record of this version", hint=_AGAIN)
    structure, aliases = record.get("structure"), record.get("aliases")
    if not isinstance(structure, list) or not isinstance(aliases, dict):
        raise CheckpointError(f"{path} lacks `structure` or `aliases`", hint=_AGAIN)
    if not all(isinstance(part, dict) for part in structure) or not all(isinstance(n, str) for n in aliases.values()):
        raise CheckpointError(
            f"{path} has a `structure` or `aliases` that is not one of records and names", hint=_AGAIN
        )
    return record
