"""The seam to the exporters: what an export is given, what its options answer, and where each format's exporter is.

The core never imports `exporters`: `EXPORTERS` names the module of each format, which is imported when it is asked for.
Such a module has `Options`, a subclass of `ExportOptions`, and `export(job)`, which gives an `Artifact`.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from compressor.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Self

    from torch import nn

    from compressor.report import Artifact
    from compressor.task.contract import Task
    from compressor.task.samples import Sample

_SILENT = Silent()
_ATOL, _RTOL = 1e-5, 1e-4


class ExportOptions(BaseModel, ABC):
    """One entry of a recipe's `exports`; its fields are the options of a format, its methods what the core asks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ending: ClassVar[str]
    """Of the file's name, without the dot."""
    in_onnx_runtime: ClassVar[bool] = False
    """Whether ONNX Runtime runs the file."""
    format: str
    """The recipe word of this exporter."""
    name: str = Field(default="model", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the file, without its ending."""
    atol: float | None = Field(default=None, gt=0, le=1e-1, allow_inf_nan=False)
    """Absolute tolerance of the comparison with PyTorch, 1e-5 if left out. A file may also be off by a small multiple
    of the model's own rounding, unless this or `rtol` is given."""
    rtol: float | None = Field(default=None, gt=0, le=1e-1, allow_inf_nan=False)
    """Relative tolerance of the comparison with PyTorch, 1e-4 if left out."""

    may_be_larger: bool = False
    """Accept a file that is larger than the original's in the same format, which is an error otherwise."""

    @property
    def is_step(self) -> bool:
        """Whether the file takes a step of a sequence instead of a whole one."""
        return False

    @property
    def streams(self) -> bool:
        """Whether a step file is written beside the file of whole sequences."""
        return False

    @property
    def emulates(self) -> bool:
        """Whether the file is also run on an emulated microcontroller, which tells its flash and RAM."""
        return False

    @property
    def compresses(self) -> bool:
        """Whether the export alone makes the model smaller, by storing it in fewer bits."""
        return False

    @property
    def rounding_block(self) -> int | None:
        """Weights of a row that share a scale in fewer than 8 bits, if the export rounds to so few."""
        return None

    @property
    def tolerances(self) -> tuple[float, float]:
        """Absolute and relative."""
        return self.atol or _ATOL, self.rtol or _RTOL

    @property
    def strict(self) -> bool:
        """Whether tolerances were given: then nothing else excuses a difference."""
        return self.atol is not None or self.rtol is not None

    @property
    def computes_in(self) -> Literal["float32", "float16"]:
        """The precision of which the file has the noise."""
        return "float32"

    @property
    def is_kept(self) -> bool:
        """Whether an exported original may be taken from an earlier run.

        Its bytes and its proof then follow from the model and from packages that fingerprints name alone.
        """
        return False

    @property
    def has_programs(self) -> bool:
        """Whether programs that run the file are written beside it."""
        return False

    @property
    def fixed_shapes(self) -> Mapping[str, int]:
        """Name of an axis in the task -> the size that the file fixes it to."""
        return {}

    @property
    def kind(self) -> tuple[str, Literal["sequence", "step"]]:
        """Format and form; files of one kind can be compared."""
        return self.format, "step" if self.is_step else "sequence"

    def file_name(self, stem: str | None = None) -> str:
        """Name of the file; `stem` replaces `name`."""
        return f"{stem or self.name}{'.step' if self.is_step else ''}.{self.ending}"

    def file_names(self, stem: str | None = None) -> tuple[str, ...]:
        """Names of all model files that an export writes."""
        name = self.file_name(stem)
        return (name, f"{name.removesuffix(f'.{self.ending}')}.step.{self.ending}") if self.streams else (name,)

    def unrounded(self) -> Self:
        """The same in float32."""
        return self

    def whole(self) -> Self:
        """The same without a step file."""
        return self

    @abstractmethod
    def fallback(self) -> ExportOptions:
        """The same form for ONNX Runtime, for an original that this format cannot hold."""


Options_co = TypeVar("Options_co", bound=ExportOptions, covariant=True)
Found = TypeVar("Found")


@dataclass(frozen=True)
class Job(Generic[Options_co]):
    """One export: everything that an exporter is given."""

    model: nn.Module
    """A float32 model; it is not changed."""
    task: Task
    """Gives the names of inputs, outputs and dynamic axes, and examples."""
    path: Path
    """Where the file goes; an older file is replaced once the new one has passed every check."""
    options: Options_co
    seed: int = 0
    """Of the task's examples, and of the sizes at which the file is compared with PyTorch."""
    progress: Progress = _SILENT
    real: tuple[Sample, ...] = ()
    """Inputs of the task's own data, on which the file is compared with PyTorch too."""
    metric_drop: float | None = None
    """What the task's metric may still lose by rounding, in its own unit; None: there is no limit."""
    shared: dict[tuple[Any, ...], Any] | None = field(default=None, repr=False, compare=False)
    """What exporters keep for the next export of the same model: give one dictionary to all jobs of a model that does
    not change meanwhile, and it is traced once for all formats. None: nothing is kept."""
    started: float = field(default_factory=time.perf_counter)
    """`time.perf_counter()` when the export began."""

    @property
    def seconds(self) -> float:
        """Since the export began."""
        return time.perf_counter() - self.started

    def once(self, what: str, task: Task, settings: tuple[Any, ...], find_out: Callable[[], Found]) -> Found:
        """What `find_out` gives, or gave in another export that shares with this one.

        Args:
            what: Of the model, of `task` and of the seed.
            task: The same object in every export that may share.
            settings: All else that it depends on.
            find_out: Called if it is not known; what it raises is not kept.
        """
        if self.shared is None:
            return find_out()
        key = what, id(self.model), id(task), self.seed, *settings
        if key not in self.shared:
            self.shared[key] = self.model, task, find_out()  # objects that are kept keep their `id`
        found: Found = self.shared[key][-1]
        return found


@dataclass(frozen=True)
class Exporter:
    """The exporter of one format."""

    module: str
    """Imported only if something of it is used."""

    def load(self) -> tuple[type[ExportOptions], Callable[[Job[Any]], Artifact]]:
        """Options and export function of the format."""
        module = importlib.import_module(self.module)
        return module.Options, module.export

    @property
    def options(self) -> type[ExportOptions]:
        """The options of the format."""
        return self.load()[0]

    def export(self, job: Job[Any]) -> Artifact:
        """Write the file of `job` and give the facts about it.

        Raises:
            ExportError: The model cannot be exported, or the converter or the runtime is missing or fails.
            ParityError: The file disagrees with PyTorch; nothing is written.
            OutputError: The file cannot be written.
        """
        return self.load()[1](job)


EXPORTERS: Mapping[str, Exporter] = MappingProxyType(
    {
        "c": Exporter("exporters.c"),
        "executorch": Exporter("exporters.executorch"),
        "litert": Exporter("exporters.litert"),
        "mnn": Exporter("exporters.mnn"),
        "ncnn": Exporter("exporters.ncnn"),
        "onnx": Exporter("exporters.onnx"),
        "ort": Exporter("exporters.ort"),
    }
)
"""Recipe word -> exporter, in the order in which they are listed."""


def export(job: Job[Any]) -> Artifact:
    """Write the file of `job` by the exporter of its format; raises as `Exporter.export`."""
    return EXPORTERS[job.options.format].export(job)
