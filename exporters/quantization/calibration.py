"""The data on which rounding is measured: training inputs, and those of every call of a file that these take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import ExportError
from compressor.runtimes.onnx_runtime import Feed, OnnxFile
from compressor.task.fixed_axes import FixedAxes, dynamic
from compressor.task.random_state import seeded_everywhere
from compressor.task.samples import size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx
    from torch import Tensor

    from compressor.task.contract import Task
    from exporters.quantization.trials import Forward

_FEW = 16
"""Sequences that say what single matrices of a large model cost; a product has many rows of each."""
_LARGE = 1 << 22
"""Numbers in the matrices of a model that is large: the measurements of each on all sequences take minutes."""
_UNSEEN = 16
"""Sequences of training data, of which the calibration has seen none, that files for NPUs are compared on."""


@dataclass(frozen=True)
class Data:
    """Training inputs."""

    seen: list[tuple[Tensor, ...]]
    """What errors are measured on, and ranges."""
    few: list[tuple[Tensor, ...]]
    """Some of each of its batches, on which single matrices of a large model are measured."""
    unseen: list[tuple[Tensor, ...]]
    """Others, or some of the same if there are no others."""
    real: bool = True
    """They are the task's training data, and not its examples, which may be random numbers."""

    def of_single_matrices(self, numbers: int) -> list[tuple[Tensor, ...]]:
        """What the error of a matrix alone is measured on, in a model whose matrices have so many numbers."""
        return self.few if is_large(numbers) else self.seen


def is_large(numbers: int) -> bool:
    """Whether a model whose matrices have so many numbers is measured with less time and memory."""
    return numbers > _LARGE


def calibration(task: Task, samples: int, seed: int, *, real: bool) -> Data:
    """Training inputs, or the task's examples if there are none and nothing has to be `real`.

    Raises:
        ExportError: No batch has the sizes that the file fixes, there is none at all, or one has NaN.
    """
    with seeded_everywhere(seed):  # a task may draw from generators of its own: all files get the same inputs
        return _drawn(task, samples, seed, real=real)


def _drawn(task: Task, samples: int, seed: int, *, real: bool) -> Data:
    seen: list[tuple[Tensor, ...]] = []
    unseen: list[tuple[Tensor, ...]] = []
    left, more, others = samples, _UNSEEN if real else 0, set()
    for inputs, _ in task.batches(torch.Generator().manual_seed(seed)):
        wrong = _other_sizes(task, inputs)
        if wrong:
            others.add(wrong)
            continue
        count = size(task, inputs, "batch")
        if left > 0:
            seen.append(_rows(task, inputs, 0, left))
        if more > 0 and count > left:
            unseen.append(_rows(task, inputs, max(left, 0), more))
            more -= size(task, unseen[-1], "batch")
        left -= count
        if left <= 0 and more <= 0:
            break
    if not seen and others:
        raise ExportError(
            f"no batch of training data has the sizes of `shapes`: there are {', '.join(sorted(others)[:8])}",
            hint="let the task's `batches` give what the phone will give, padded to that size; or fix another one",
        )
    if not seen and real:
        raise ExportError(
            "the task's `batches` give no data to calibrate with",
            hint="let `batches` give training inputs; for `quantize_for: cpu` or `anywhere` examples would do",
        )
    found = bool(seen)
    seen = seen or [task.example(min(samples, 16), task.length)]
    _refuse_nan(task, seen)
    return Data(seen, _some(task, seen), unseen or seen[-1:], found)


def _some(task: Task, batches: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """The first samples of each batch, its share of `_FEW`: a batch may be of sequences of one length."""
    sizes = [size(task, inputs, "batch") for inputs in batches]
    shares = (-(-count * min(_FEW, sum(sizes)) // sum(sizes)) for count in sizes)
    return [_rows(task, inputs, 0, share) for inputs, share in zip(batches, shares, strict=True)]


def _other_sizes(task: Task, inputs: tuple[Tensor, ...]) -> str:
    """The first axis that has another size than the file fixes, as `time 23`; empty if all are right."""
    if isinstance(task, FixedAxes):
        for axes, part in zip(task.task.inputs.values(), inputs, strict=True):
            for axis, word in axes.items():
                if word != "batch" and task.sizes.get(word, part.shape[axis]) != part.shape[axis]:
                    return f"{word} {part.shape[axis]}"
    return ""


def _refuse_nan(task: Task, batches: Sequence[tuple[Tensor, ...]]) -> None:
    for inputs in batches:
        for name, part in zip(task.inputs, inputs, strict=True):
            if part.is_floating_point() and not bool(part.isfinite().all()):
                raise ExportError(
                    f"the training data has NaN or infinity in `{name}`, so nothing can be measured on it",
                    hint="clean what the task's `batches` give",
                )


class _Recorded(OnnxFile):
    """A file that keeps what it is given."""

    def __init__(self, path: Path) -> None:
        """Load it."""
        super().__init__(path)
        self.feeds: list[Feed] = []

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """As every file."""
        self.feeds.append(dict(feed))
        return super().run(feed)


def feeds(
    proto: onnx.ModelProto, folder: Path, behind: Callable[[OnnxFile], Forward], batches: Sequence[tuple[Tensor, ...]]
) -> list[Feed]:
    """The inputs of every call of a file that these batches take: of each sample, and of a step file of each step."""
    path = folder / "float.onnx"
    path.write_bytes(proto.SerializeToString())
    file = _Recorded(path)
    forward = behind(file)
    for inputs in batches:
        forward(*inputs)
    return file.feeds


def _rows(task: Task, inputs: tuple[Tensor, ...], start: int, count: int) -> tuple[Tensor, ...]:
    """Samples of a batch from `start` on, `count` at most."""
    kept = []
    for axes, part in zip(dynamic(task).inputs.values(), inputs, strict=True):
        axis = next((axis for axis, word in axes.items() if word == "batch"), None)
        left = 0 if axis is None else min(count, part.shape[axis] - start)
        kept.append(part.cpu() if axis is None else part.cpu().narrow(axis, start, left))
    return tuple(kept)
