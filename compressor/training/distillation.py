"""Losses that pull a student's outputs to a teacher's; each a scalar, the mean over all leading axes.

Gradients flow into the student only if the teacher's tensors were computed without them, which is the caller's part.
"""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from compressor.training.remembered import Remembered

Loss = Literal["kl", "mse", "cosine"]


def kl(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T^2 * mean over positions of sum_c p_c (log p_c - log q_c), p = softmax(teacher / T), q = softmax(student / T).

    The factor T^2 keeps the gradient's size when T changes (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        student: Logits (..., C).
        teacher: Logits of the same shape.
        temperature: T > 0.
    """
    classes = student.shape[-1]
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1).reshape(-1, classes),
        functional.log_softmax(teacher / temperature, dim=-1).reshape(-1, classes),
        reduction="batchmean",
        log_target=True,
    )


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean of (student - teacher)^2 over all elements."""
    return functional.mse_loss(student, teacher)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over positions of 1 - cos(student, teacher) along the last axis, 0..2; for embeddings (..., C)."""
    return (1.0 - functional.cosine_similarity(student, teacher, dim=-1)).mean()


def output_loss(kind: Loss, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """The loss of that name; `temperature` matters to `kl` only."""
    if kind == "kl":
        return kl(student, teacher, temperature)
    return mse(student, teacher) if kind == "mse" else cosine(student, teacher)


def first_tensor(outputs: Any) -> Tensor | None:
    """The tensor itself, or the first one of a tuple or list (the sequence of a GRU; the data of a packed one)."""
    while isinstance(outputs, (tuple, list)) and outputs:
        outputs = outputs[0]
    return outputs if isinstance(outputs, Tensor) else None


def refuse_unknown(names: Sequence[str], model: nn.Module) -> None:
    """Raise `MethodError` on a hidden module that the model does not have, with the nearest name."""
    known = [path for path, _ in model.named_modules() if path]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise MethodError(
                f"`distill_hidden`: the model has no module `{name}`",
                hint=f"did you mean `{near[0]}`?" if near else f"modules: {', '.join(known) or 'none'}",
            )


class Teacher:
    """The model to learn from, and what is compared; a context manager, since it hooks both models meanwhile.

    loss = output loss + mean over the hidden modules of mean squared error. If a hidden output of the student is
    narrower (or wider) than the teacher's, a linear map S -> T without bias stands between; it is trained along
    (`parameters`) and is not a part of the student.
    """

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        kind: Loss,
        temperature: float,
        hidden: Sequence[str],
        example: Sequence[Tensor],
        remembered: Remembered | None = None,
        moved: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Hook the models and run both once on `example` to learn the shapes; `moved` are other names in the student.

        `remembered` has the teacher's outputs of earlier trainings; hidden ones are computed each time.

        Raises:
            MethodError: A hidden module is not in both models, is not called, or gives outputs that cannot be
                compared.
        """
        self._teacher = teacher
        self._kind = kind
        self._temperature = temperature
        self._of_teacher = _Outputs(teacher, hidden)
        self._remembered = None if hidden else remembered
        self._moved = moved
        self._of_student = _Outputs(student, list(dict.fromkeys(moved.get(name, name) for name in hidden)))
        self._projections: dict[str, nn.Linear] = {}
        try:
            self._make_projections(student, hidden, example)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Teacher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained beside the student, by names that no parameter of a model can have."""
        return {f"distill_hidden:{name}": cast("nn.Parameter", item.weight) for name, item in self._projections.items()}

    def close(self) -> None:
        """Take the hooks away."""
        self._of_teacher.close()
        self._of_student.close()

    def loss(self, inputs: Sequence[Tensor], outputs: Any) -> Tensor:
        """Distance of the student's `outputs`, just computed from `inputs`, to the teacher's; a scalar."""
        value = self.output_distance(inputs, outputs)
        pairs = self._pairs()
        return value + torch.stack([mse(a, b) for a, b in pairs]).mean() if pairs else value

    def output_distance(self, inputs: Sequence[Tensor], outputs: Any) -> Tensor:
        """The same without hidden modules."""
        goal = self._goal(inputs)
        mine = first_tensor(outputs)
        if goal is None or mine is None:
            raise MethodError("the model's output is not a tensor, so there is nothing to distil", hint=_NO_DISTILL)
        if goal.shape != mine.shape:
            raise MethodError(
                f"the model gives outputs {tuple(mine.shape)}, the original {tuple(goal.shape)}", hint=_NO_DISTILL
            )
        if self._kind != "mse" and (goal.dim() < 2 or goal.shape[-1] == 1):
            raise MethodError(
                f"`distill_loss: {self._kind}` compares the entries along the last axis of the output, and an output "
                f"{tuple(goal.shape)} has one number a sample",
                hint="set `distill_loss: mse`",
            )
        return output_loss(self._kind, mine, goal, self._temperature)

    @torch.no_grad()
    def _goal(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """The teacher's output."""
        if self._remembered is None:
            return first_tensor(self._teacher(*inputs))
        return self._remembered.answer(inputs, lambda: first_tensor(self._teacher(*inputs)))  # type: ignore[no-any-return]

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Of each hidden module the student's output, through its map if it has one, and the teacher's."""
        mine = {name: self._of_student.take(name) for name in self._of_student.names}
        pairs = []
        for name in self._of_teacher.names:
            own, projection = mine[self._moved.get(name, name)], self._projections.get(name)
            pairs.append((own if projection is None else projection(own), self._of_teacher.take(name)))
        return pairs

    def _make_projections(self, student: nn.Module, hidden: Sequence[str], example: Sequence[Tensor]) -> None:
        if not hidden:
            return
        with torch.no_grad():
            self._teacher(*example)
            student(*example)
        for name, (mine, goal) in zip(hidden, self._pairs(), strict=True):
            if mine.shape[:-1] != goal.shape[:-1]:
                raise MethodError(
                    f"`distill_hidden`: `{name}` gives {tuple(mine.shape)}, in the original {tuple(goal.shape)}; "
                    "only the last axis may differ",
                    hint="leave this module out",
                )
            if mine.shape != goal.shape:
                # made on the CPU, so that it starts the same on every device
                projection = nn.Linear(mine.shape[-1], goal.shape[-1], bias=False)
                self._projections[name] = projection.to(mine.device, mine.dtype)


_NO_DISTILL = "retrain without `distill`, or let the model's first output be the tensor to match"


class _Outputs:
    """Keeps the latest first output tensor of each of the named modules."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._latest: dict[str, Tensor | None] = {}
        self._handles = [model.get_submodule(name).register_forward_hook(self._keep(name)) for name in names]

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
            self._latest[name] = first_tensor(outputs)

        return hook

    def take(self, name: str) -> Tensor:
        """The output of the last call, which is forgotten."""
        if name not in self._latest:
            raise MethodError(f"`distill_hidden`: `{name}` is not called in `forward`", hint="leave this module out")
        tensor = self._latest.pop(name)
        if tensor is None or tensor.ndim == 0:
            raise MethodError(f"`distill_hidden`: `{name}` gives no tensor", hint="leave this module out")
        return tensor

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
