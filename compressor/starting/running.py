"""Calls a model on trial, and keeps what says most about why no trial ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from compressor.errors import TaskError, first_line
from compressor.nn.recurrent.layers import is_layer, is_step_module
from compressor.task.fidelity import tensors_of
from compressor.task.unlabelled import seeded

if TYPE_CHECKING:
    from compressor.task.signature import Call


class Trials:
    """Calls of one model; of those that fail, the one that got furthest says most about what the model takes."""

    def __init__(self, model: nn.Module) -> None:
        """Of a model in evaluation mode."""
        self.model = model
        self._entered = 0
        self._last: nn.Module | None = None
        self._reason = ""

    def run(self, call: Call, text: str) -> Any:
        """What the model gives; raises whatever the model raises, and `TaskError` if it gives no tensor.

        Args:
            call: Its arguments.
            text: What gave them.
        """
        entered: list[nn.Module] = []
        hook = register_module_forward_pre_hook(lambda module, arguments: entered.append(module))
        try:
            return run(self.model, call)
        except Exception as error:
            if len(entered) > self._entered:
                self._entered, self._last = len(entered), entered[-1]
                self._reason = self._told(entered[-1], text, error)
            raise
        finally:
            hook.remove()

    def _told(self, last: nn.Module, text: str, error: Exception) -> str:
        reason = error.message if isinstance(error, TaskError) else first_line(error)
        name = next((name for name, module in self.model.named_modules() if module is last), "")
        return f"with `{text}` it gets furthest{f', to `{name}`' if name else ''}: {reason}"

    @property
    def reason(self) -> str:
        """Why no call ran; empty if none got into the model."""
        return self._reason

    @property
    def hint(self) -> str | None:
        """The remedy, if the reason is known; None otherwise."""
        kept = kept_tensors(self.model)
        if kept and self._last is not None and (is_layer(self._last) or is_step_module(self._last)):
            names = ", ".join(f"`{name}`" for name in kept)
            return (
                f"the model keeps {names} from call to call, in the size of one batch: give a class of yours around "
                "it whose `forward` sets zeros of the size of its input first, or takes the state and returns it"
            )
        if "gives no tensor" in self._reason:
            return "give a class of yours around it whose `forward` returns tensors: what is decoded, before decoding"
        return None


def run(model: nn.Module, call: Call) -> Any:
    """What the model gives, with the same random numbers every time; raises `TaskError` if there is no tensor in it."""
    with torch.no_grad(), seeded(0):
        results = model(*call.args, **call.kwargs)
    if not tensors_of(results):
        raise TaskError(f"it gives no tensor, but a {type(results).__name__}")
    return results


def kept_tensors(model: nn.Module) -> list[str]:
    """Attributes that are tensors and neither parameters nor buffers, which `load_state_dict` does not know."""
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) or (isinstance(value, tuple) and value and isinstance(value[0], Tensor))
    ]
