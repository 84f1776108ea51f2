"""Records: the structure of a layer as JSON, read back strictly, since they may come from an untrusted source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from compressor.errors import CheckpointError

Size = Annotated[int, Field(gt=0, lt=1 << 24)]
"""A number of features."""
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]

_MOST_PROBLEMS = 3


class LayerRecord(BaseModel):
    """Base of the records: JSON types as they are (`true` is not 1), no unknown keys, no missing ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


R = TypeVar("R", bound=LayerRecord)
M = TypeVar("M", bound=nn.Module)


def of_another_task(message: str) -> CheckpointError:
    """The error of a record that does not fit the model."""
    return CheckpointError(message, hint="load it with the task that it was made from")


def of_another_version(message: str) -> CheckpointError:
    """The error of a record that this version does not know."""
    return CheckpointError(message, hint="load it with the version that wrote it")


def parse(kind: type[R], record: Any) -> R:
    """The record as an object.

    Raises:
        CheckpointError: It is not a record of this kind; the message names the keys.
    """
    if not isinstance(record, Mapping):
        raise of_another_version(f"the record of a layer is a {type(record).__name__}, not an object")
    try:
        return kind.model_validate(dict(record))
    except ValidationError as error:
        problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
        shown = "; ".join(f"`{key}`: {text}" if key else text for key, text in problems[:_MOST_PROBLEMS])
        raise of_another_version(f"the record of a layer is not valid: {shown}") from error


def allocate(module: M, device: torch.device | str | None) -> M:
    """A module that was built on the device `meta`, with undefined weights on a real one.

    Nothing is initialised on the way, so the state of the random generators stays as it is.

    Raises:
        CheckpointError: There is not enough memory.
    """
    try:
        return module.to_empty(device=torch.get_default_device() if device is None else device)
    except (RuntimeError, MemoryError) as error:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        raise CheckpointError(
            f"a `{type(module).__name__}` of {parameters} parameters cannot be allocated: {error}",
            hint="is the record the one that belongs to the weights?",
        ) from error


def copy_parameter(target: Tensor, source: Tensor) -> None:
    """Give a parameter the values of another one, and `requires_grad`, in place."""
    with torch.no_grad():
        target.copy_(source)
    target.requires_grad_(source.requires_grad)


class RecordedLayer(nn.Module, ABC):
    """A layer whose structure is a record.

    The fields of `record_type` are the arguments of `__init__`; a class of which that is not so has its own `_built`.
    """

    record_type: ClassVar[type[LayerRecord]]

    @classmethod
    def from_record(
        cls, record: Any, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """The layer that a record describes; its weights are undefined.

        Raises:
            CheckpointError: The record is not valid.
        """
        return cls._built(parse(cls.record_type, record), device, dtype)

    @classmethod
    def _built(cls, fields: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        """The layer of a record that is valid."""
        return allocate(cls(**fields.model_dump(), device="meta", dtype=dtype), device)

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
