"""Builds files with given forms of their matrices, and measures what these cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from compressor.files import writing
from compressor.runtimes.forward import WhenCalled
from exporters.passes.external_data import one_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx

    from exporters.quantization.matrices import Form
    from exporters.quantization.writing import Writer

Forward = Callable[..., Tensor | tuple[Tensor, ...]]


@dataclass(frozen=True)
class Metric:
    """The task's metric, and how much of it rounding may cost."""

    function: Literal["validate", "evaluate"]
    loss: Callable[[Forward], float]
    """How much worse a file scores than the float file."""
    allowed: float


@dataclass
class Trials:
    """Builds files with given forms and measures them."""

    writer: Writer
    folder: Path
    open: Callable[[Path], Forward]
    calibration: Sequence[tuple[Tensor, ...]]
    few: Sequence[tuple[Tensor, ...]]
    """Of the calibration data: what single matrices are measured on."""
    metric: Metric | None = None
    _wanted: dict[int, list[tuple[Tensor, ...]]] = field(default_factory=dict)

    def forward(self, forms: Mapping[str, Form], *, exact: bool = False) -> WhenCalled:
        """A file with these forms."""
        return self.opened(self.writer.draft(forms, exact=exact))

    def opened(self, proto: onnx.ModelProto) -> WhenCalled:
        """The file of a graph, which is written and loaded when it is called first: one is in memory at a time."""

        def open_file() -> Forward:
            path = self.folder / "trial.onnx"
            with writing(path):
                path.write_bytes(proto.SerializeToString())
            return self.open(path)

        return WhenCalled(open_file)

    def as_shipped(self, proto: onnx.ModelProto, open_file: Callable[[Path], Forward]) -> WhenCalled:
        """The same as one file that holds all of its weights, opened in another way."""

        def opened() -> Forward:
            path = self.folder / "shipped.onnx"
            one_file(proto, self.folder).write(path)
            return open_file(path)

        return WhenCalled(opened)

    def bytes(self, forms: Mapping[str, Form]) -> int:
        """Of a file with these forms, all of its weights in it."""
        return one_file(self.writer.draft(forms), self.folder).bytes

    def error(self, forward: Forward) -> float:
        """Relative error of a file's outputs on the calibration data; see `relative_error`."""
        return self._error(forward, self.calibration)

    def error_alone(self, forward: Forward) -> float:
        """The same of a file in which one matrix is rounded."""
        return self._error(forward, self.few)

    def _error(self, forward: Forward, batches: Sequence[tuple[Tensor, ...]]) -> float:
        if id(batches) not in self._wanted:
            # The float file is gone before the next is loaded.
            self._wanted[id(batches)] = _outputs(self.forward({}), batches)
        return relative_error(self._wanted[id(batches)], _outputs(forward, batches))


def _outputs(forward: Forward, batches: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    return [as_tuple(forward(*inputs)) for inputs in batches]


def relative_error(wanted: Sequence[tuple[Tensor, ...]], actual: Sequence[tuple[Tensor, ...]]) -> float:
    """The largest of the outputs' ||actual - wanted|| / ||wanted||, each over all batches.

    Integers and booleans, such as an argmax, are left out. Infinite if a value is not finite or a shape differs.
    """
    largest: float = 0.0
    for ours, theirs in zip(zip(*wanted, strict=True), zip(*actual, strict=True), strict=True):
        if not ours[0].is_floating_point():
            continue
        if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
            return float("inf")
        pairs = zip(ours, theirs, strict=True)
        difference = float(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))
        norm = float(sum(float(a.double().square().sum()) for a in ours))
        if not difference < float("inf"):
            return float("inf")
        largest = max(largest, (difference / norm) ** 0.5 if norm else difference**0.5)
    return largest


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Outputs as a tuple, also a single one."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
