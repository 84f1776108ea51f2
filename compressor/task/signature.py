"""How a model is called: any arguments and results on the user's side, a flat tuple of tensors on the tool's side.

Everything inside the tool calls a model as `model(*tensors)` and gets a tensor or a flat tuple of tensors. A user's
`forward` takes what its author liked: keyword arguments, dictionaries, nested states, `None`, numbers; and gives named
tuples, dataclasses or the output classes of other libraries. A `Signature` is found from one call and translates in
both directions. Only tensors vary between calls; all else is part of the signature.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_CONSTANTS = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
"""What a call may hold beside tensors; the same in every call."""


class Call:
    """The arguments of one call of `forward`, keyword arguments among them: `Call(x, hx=state)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the arguments as they are."""
        self.args, self.kwargs = args, kwargs


def as_call(inputs: Any) -> Call:
    """The call that a task's inputs stand for.

    A tuple or a list holds positional arguments, a dictionary keyword arguments; a tensor or anything else is the only
    argument. A named tuple, or a dictionary inside a tuple, is one argument.
    """
    if isinstance(inputs, Call):
        return inputs
    if isinstance(inputs, (tuple, list)) and not hasattr(inputs, "_fields"):
        return Call(*inputs)
    if isinstance(inputs, Mapping):
        if not all(isinstance(name, str) for name in inputs):
            raise TaskError("keyword arguments must have text as names", hint="put a dictionary argument in a tuple")
        return Call(**inputs)
    return Call(inputs)


@dataclass(frozen=True)
class _Tree:
    """The structure of a value: where its tensors are, how they are called, and all else that it holds."""

    spec: pytree.TreeSpec
    names: tuple[str, ...]
    """One for each tensor, from its place: `state.0`."""
    constants: tuple[Any, ...]
    """For each leaf what it is, `Tensor` (the class) for a tensor."""

    @classmethod
    def of(cls, value: Any, what: str) -> tuple[_Tree, tuple[Tensor, ...]]:
        """The structure and the tensors of `value`; raises `TaskError` for leaves of other kinds."""
        _register_dataclasses(value)
        paths, spec = pytree.tree_flatten_with_path(value)
        names: list[str] = []
        constants: list[Any] = []
        tensors: list[Tensor] = []
        for path, leaf in paths:
            name = ".".join(_key(part) for part in path)
            if isinstance(leaf, (Tensor, np.ndarray)):
                names.append(name)
                constants.append(Tensor)
                tensors.append(_as_tensor(leaf))
            elif isinstance(leaf, _CONSTANTS):
                constants.append(leaf)
            else:
                raise TaskError(
                    f"{what} {f'`{name}` ' if name else ''}is a {type(leaf).__name__}: only tensors, numbers, text, "
                    "None, and tuples, lists, dictionaries, named tuples and dataclasses of them can be followed",
                    hint="set `model.config.use_cache = False` in the task's `model`"
                    if type(leaf).__name__.endswith("Cache")
                    else "take the tensors out of it, or register the class with torch.utils._pytree",
                )
        return cls(spec, tuple(names), tuple(constants)), tuple(tensors)

    def build(self, tensors: Iterable[Tensor]) -> Any:
        """The value with these tensors in it."""
        remaining = iter(tensors)
        leaves = [next(remaining) if constant is Tensor else constant for constant in self.constants]
        return pytree.tree_unflatten(leaves, self.spec)


@dataclass(frozen=True)
class Signature:
    """The structure of a model's arguments and results."""

    parameters: inspect.Signature
    """Of the user's `forward`."""
    inputs: _Tree
    """Of {parameter: argument}, defaults filled in."""
    outputs: _Tree | None = None
    """None until the model was called once."""

    @classmethod
    def of_call(cls, forward: Callable[..., Any], call: Call) -> Signature:
        """From the arguments alone.

        Raises:
            TaskError: `forward` does not take them, or they hold something that is no tensor and no constant.
        """
        parameters = inspect.signature(forward)
        tree, _ = _Tree.of(_bind(parameters, call), "argument")
        return cls(parameters, tree)

    def with_results(self, results: Any) -> Signature:
        """The same, knowing what the model gives."""
        tree, tensors = _Tree.of(results, "the model's result")
        if not tensors:
            raise TaskError("the model gives no tensor", hint="`forward` must return at least one tensor")
        return dataclasses.replace(self, outputs=tree)

    @cached_property
    def is_flat(self) -> bool:
        """True if the model already takes positional tensors and gives a tensor or a tuple of tensors."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        plain = [name for name, parameter in self.parameters.parameters.items() if parameter.kind in kinds]
        given = list(self.inputs.names)
        first = plain[: len(given)] == given
        rest = all(constant is Tensor or constant is None for constant in self.inputs.constants)
        return first and rest and self._unused_are_defaults(given) and self._gives_flat_results()

    def _unused_are_defaults(self, given: Sequence[str]) -> bool:
        values = dict(
            zip(self.parameters.parameters, self.inputs.build([torch.empty(0)] * len(given)).values(), strict=True)
        )
        return all(
            name in given or _is_empty(parameter, values[name]) or values[name] is parameter.default
            for name, parameter in self.parameters.parameters.items()
        )

    def _gives_flat_results(self) -> bool:
        if self.outputs is None:
            return False
        sample = self.outputs.build([torch.empty(0)] * len(self.outputs.names))
        return isinstance(sample, Tensor) or (
            type(sample) is tuple and all(isinstance(part, Tensor) for part in sample)
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """A name for each tensor that goes in, from its place among the arguments."""
        return self.inputs.names

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each tensor that comes out: `output`, `output.0`, or the names of fields and keys."""
        assert self.outputs is not None
        return tuple(
            "output" if not name else f"output.{name}" if name.partition(".")[0].isdigit() else name
            for name in self.outputs.names
        )

    def flatten(self, call: Call) -> tuple[Tensor, ...]:
        """The tensors of a call.

        Raises:
            TaskError: The call is not like the one from which the signature was found.
        """
        tree, tensors = _Tree.of(_bind(self.parameters, call), "argument")
        if tree.spec != self.inputs.spec or tree.constants != self.inputs.constants:
            raise TaskError(
                f"the model is called in another way than with `example`: {_difference(tree, self.inputs)}",
                hint="only the values and sizes of tensors may differ between calls; let `example` give every argument",
            )
        return tensors

    def call(self, tensors: Iterable[Tensor]) -> Call:
        """The call that hands these tensors over."""
        args, kwargs = [], {}
        arguments = self.inputs.build(tensors)
        more = any(
            parameter.kind is inspect.Parameter.VAR_POSITIONAL and len(arguments[name]) > 0
            for name, parameter in self.parameters.parameters.items()
        )
        by_name = False  # an argument that is left at its default makes all later ones keywords
        for name, parameter in self.parameters.parameters.items():
            value = arguments[name]
            if _is_left(parameter, value) and not more:
                by_name = True  # not handed over: decorators of `forward` may tell that from the default itself
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY or by_name:
                kwargs[name] = value
            else:
                args.append(value)
        return Call(*args, **kwargs)

    def results(self, flat: Tensor | Sequence[Tensor]) -> Any:
        """What the user's `forward` would give, from the flat results."""
        assert self.outputs is not None
        tensors = (flat,) if isinstance(flat, Tensor) else tuple(flat)
        return self.outputs.build(tensors)

    def flat_results(self, results: Any) -> Tensor | tuple[Tensor, ...]:
        """The tensors of a result: one by itself, several as a tuple."""
        leaves = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]
        return leaves[0] if len(leaves) == 1 else tuple(leaves)


def flatten_calls(model: nn.Module, signature: Signature) -> nn.Module:
    """Let `model` be called with flat tensors, in place; a model that is flat already stays as it is.

    Only this instance's `forward` changes: its class, submodules and parameter names stay, and a deep copy has a flat
    `forward` of its own.
    """
    if not signature.is_flat:
        # A bound method and nothing else: torch.export reads its code object, and a deep copy binds it to the copy.
        model.forward = MethodType(_flat_forward(signature), model)
    return model


def with_own_forward(model: nn.Module) -> nn.Module:
    """Undo `flatten_calls`, in place: the model is called as its author wrote it.

    Hooks that the tool set before the call, for flat tensors, are translated.
    """
    forward = model.__dict__.pop("forward", None)
    signature = getattr(forward, "signature", None)
    if signature is None:
        if forward is not None:
            model.forward = forward
        return model
    hooks = list(model._forward_pre_hooks.values())
    model._forward_pre_hooks.clear()
    for hook in hooks:
        model.register_forward_pre_hook(_structured_hook(signature, hook), with_kwargs=True)
    return model


def _structured_hook(signature: Signature, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of flat tensors as one of the user's own arguments."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        call = signature.call(hook(module, signature.flatten(Call(*args, **kwargs))))
        return call.args, call.kwargs

    return before


def structured(signature: Signature, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A function of flat tensors that is called as the user's own `forward`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return signature.results(forward(*signature.flatten(Call(*args, **kwargs))))

    return call


def _flat_forward(signature: Signature) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    def forward(self: nn.Module, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        call = signature.call(tensors)
        return signature.flat_results(type(self).forward(self, *call.args, **call.kwargs))

    forward.signature = signature  # type: ignore[attr-defined]
    names = ["self", *(re.sub(r"\W", "_", name) for name in signature.input_names)]
    if len(set(names)) == len(names) and all(name.isidentifier() for name in names):
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


def _bind(parameters: inspect.Signature, call: Call) -> dict[str, Any]:
    try:
        bound = parameters.bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise TaskError(
            f"`forward{parameters}` cannot be called with these arguments: {error}",
            hint="`example` gives positional arguments as a tuple, keyword arguments as a dictionary, both as "
            "`compressor.Call(x, mask=m)`",
        ) from error
    bound.apply_defaults()
    return dict(bound.arguments)


def _as_tensor(value: Tensor | np.ndarray[Any, Any]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))


def _key(part: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)


def _is_left(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether an argument may be left out, since it is the default."""
    named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    default = parameter.default
    return named and (value is default or (type(value) is type(default) in _CONSTANTS and value == default))


def _is_empty(parameter: inspect.Parameter, value: Any) -> bool:
    return parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) and not value


def _difference(ours: _Tree, expected: _Tree) -> str:
    """The first difference between two structures, in words."""
    more, fewer = set(ours.names) - set(expected.names), set(expected.names) - set(ours.names)
    if more:
        return f"it hands over `{min(more)}`, which `example` does not"
    if fewer:
        return f"it does not hand over `{min(fewer)}`, which `example` does"
    values = [(mine, other) for mine, other in zip(ours.constants, expected.constants, strict=False) if mine != other]
    if values:
        return f"an argument is {values[0][0]!r} and was {values[0][1]!r}"
    return "its containers are of other kinds or sizes"


def _register_dataclasses(value: Any) -> None:
    """Make dataclasses in `value` known to pytree, which takes them for leaves otherwise."""
    seen: list[Any] = [value]
    while seen:
        part = seen.pop()
        kind = type(part)
        if dataclasses.is_dataclass(part) and not isinstance(part, type) and kind not in pytree.SUPPORTED_NODES:
            _register(kind)
        if dataclasses.is_dataclass(part) and not isinstance(part, type):
            seen.extend(getattr(part, field.name) for field in dataclasses.fields(part))
        elif isinstance(part, Mapping):
            seen.extend(part.values())
        elif isinstance(part, (tuple, list)):
            seen.extend(part)


def _register(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]

    def flatten(value: Any) -> tuple[list[Any], Any]:
        return [getattr(value, name) for name in names], None

    def with_keys(value: Any) -> tuple[list[tuple[Any, Any]], Any]:
        return [(pytree.GetAttrKey(name), getattr(value, name)) for name in names], None

    def unflatten(values: Iterable[Any], context: Any) -> Any:
        value: Any = object.__new__(kind)  # not by its `__init__`, which may take other arguments or check them
        for name, part in zip(names, values, strict=True):
            object.__setattr__(value, name, part)
        return value

    pytree.register_pytree_node(kind, flatten, unflatten, flatten_with_keys_fn=with_keys)
