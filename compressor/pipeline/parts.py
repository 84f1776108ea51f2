"""A part of a journal: one safetensors file with JSON in its header, and how the result of any work is kept in it.

Nothing else is ever read, so a part from elsewhere can be wrong, but it runs no code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from compressor.errors import OutputError
from compressor.files import json_object, write_whole, writing
from compressor.files.staged import plain_names
from compressor.task.random_state import set_random_state

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

T = TypeVar("T")
_RANDOM = "random."


@dataclass(frozen=True)
class Kept:
    """What is kept of a part: facts that JSON can hold, and tensors."""

    facts: Any = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Form(Protocol[T]):
    """How the result of a part is kept."""

    def write(self, value: T) -> Kept:
        """What is kept of the result."""

    def read(self, kept: Kept) -> T:
        """The result again; raises `ValueError` or `KeyError` if it is not one."""


class Facts(Generic[T]):
    """The form of results that are made of facts of a report, numbers and lists of them."""

    def __init__(self, kind: Any) -> None:
        """`kind` is the type of the result."""
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)

    def write(self, value: T) -> Kept:
        """As JSON."""
        return Kept(json.loads(self._adapter.dump_json(value)))

    def read(self, kept: Kept) -> T:
        """From JSON."""
        return self._adapter.validate_json(json.dumps(kept.facts))


@dataclass(frozen=True)
class Part:
    """A finished part as it was read."""

    head: dict[str, Any]
    """`facts`, the names and hashes of its `files`, its `seconds`, and numbers of the `random` generators."""
    tensors: dict[str, Tensor]
    """Its own, and states of random generators."""

    @property
    def kept(self) -> Kept:
        """What it gave."""
        own = {name: value for name, value in self.tensors.items() if not name.startswith(_RANDOM)}
        return Kept(self.head["facts"], own)

    def restore(self, device: torch.device) -> None:
        """Let the random generators go on from where they were after it."""
        try:
            set_random_state(self.tensors, self.head["random"], device)
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise OutputError(
                f"the journal of the run is damaged: {error}", hint="begin anew with --restart"
            ) from error


def read_part(path: Path) -> Part | None:
    """A part that is whole; None if there is none."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as content:
            head = json_object(content.metadata()["part"])
            tensors = {key: content.get_tensor(key).clone() for key in content.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return Part(head, tensors) if head is not None and _is_head(head) else None


def write_part(path: Path, head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a part, whole or not at all."""
    from safetensors.torch import save

    with writing(path):
        path.parent.mkdir(exist_ok=True)
    write_whole(path, save(dict(tensors), {"part": json.dumps(head)}))


def _is_head(head: dict[str, Any]) -> bool:
    """Whether a header has the form of a part; what its facts are is asked later."""
    if set(head) != {"facts", "files", "seconds", "random"}:
        return False
    files, seconds = head["files"], head["seconds"]
    hashes = isinstance(files, dict) and all(isinstance(content, str) for content in files.values())
    times = isinstance(seconds, list) and len(seconds) == 2 and all(isinstance(time, float) for time in seconds)
    return hashes and times and len(plain_names(list(files))) == len(files)
