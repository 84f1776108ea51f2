"""A task whose model becomes several files: which modules these are, and how the model calls each of them.

The model's own `forward` says how its modules work together. It is run with the task's example, and what enters and
leaves each module is seen; so units that one module hands to another are followed like all others.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.errors import TaskError
from compressor.task.axes import Observed, Sized
from compressor.task.calls import Calls
from compressor.task.fidelity import tensors_of
from compressor.task.module_calls import Seen, watched, with_stand_ins
from compressor.task.signature import Call, Signature

if TYPE_CHECKING:
    from torch import nn

    from compressor.task.calls import Sizes, Trials
    from compressor.task.sizes import Ranges


@dataclass(frozen=True)
class Submodule:
    """One module that becomes a file."""

    path: str
    """Its name in the model."""
    calls: Calls


def paths_of(declared: Any) -> dict[str, str]:
    """Name of each file -> the module's name in the model, from `Task.modules`.

    Raises:
        TaskError: It is neither names nor a mapping of names, or a name is no identifier.
    """
    hint = 'such as `modules = ("encoder", "decoder")`, or `{"encoder": "net.encoder", "decoder": "net.decoder"}`'
    if isinstance(declared, str) or not isinstance(declared, (Mapping, Sequence)):
        raise TaskError("`modules` must name modules of the model", hint=hint)
    paths = dict(declared) if isinstance(declared, Mapping) else {name: name for name in declared}
    for name, path in paths.items():
        if not isinstance(path, str) or not path or not isinstance(name, str) or not name.isidentifier():
            raise TaskError(f"`modules` cannot name a file {name!r} for {path!r}", hint=hint)
    for path in paths.values():
        within = [other for other in paths.values() if path.startswith(f"{other}.")]
        if within:
            raise TaskError(f"`modules` names `{path}` beside `{within[0]}`, which holds it", hint="name one of them")
    return paths


def learn_submodules(
    trials: Trials, model: nn.Module, paths: Mapping[str, str], ranges: Ranges
) -> dict[str, Submodule]:
    """See how the model calls each of its modules, at two sizes of every axis.

    Args:
        trials: The calls of the model.
        model: In evaluation mode, with the user's own `forward`.
        paths: As `paths_of` gives them.
        ranges: Of the further sizes that the model's tensors follow.

    Raises:
        TaskError: A module is not there, not called, called in two ways, or used in another way than by calls; or
            the model has parameters outside of all of them.
    """
    for path in paths.values():
        _check_there(model, path)
    _refuse_parameters_outside(model, paths)
    first, others = trials.first, trials.changed()
    seen = _seen(trials, model, paths, first)
    changed = {word: _seen(trials, model, paths, sizes) for word, sizes in others.items()}
    _refuse_other_uses(trials, model, paths, first)
    found = {}
    for name, path in paths.items():
        call, result = seen[name][-1]
        signature = Signature.of_call(model.get_submodule(path).forward, call).with_results(result)
        shapes = _shapes(name, signature, seen[name])
        sized = {word: (others[word], _shapes(name, signature, calls[name])) for word, calls in changed.items()}
        inputs, outputs = (
            Observed(
                names,
                Sized(first, shapes[side]),
                {word: Sized(sizes, both[side]) for word, (sizes, both) in sized.items()},
            ).axes(None)
            for side, names in enumerate((signature.input_names, signature.output_names))
        )
        followed = {word: bounds for word, bounds in ranges.items() if sized[word][1] != shapes}
        found[name] = Submodule(path, Calls(signature, inputs, outputs, followed))
    return found


def _seen(trials: Trials, model: nn.Module, paths: Mapping[str, str], sizes: Sizes) -> Seen:
    with watched(model, paths) as seen:
        trials.run(model, sizes)
    for name, calls in seen.items():
        if not calls:
            raise TaskError(
                f"the model's `forward` does not call `{paths[name]}`, which `modules` names",
                hint="let `forward` run the modules one after the other, as they are trained; a file takes what it "
                "hands to them",
            )
    return seen


def _shapes(
    name: str, signature: Signature, calls: Sequence[tuple[Call, Any]]
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of what enters and leaves a module in its last call; all calls must be alike."""
    for call, result in calls:
        try:
            tensors = signature.flatten(call)
        except TaskError as error:
            raise TaskError(
                f"`{name}` is called in two ways: {error.message.partition(': ')[2]}",
                hint="a file takes the same arguments in every call: hand over zeros for a state that is not there yet",
            ) from error
        mine = signature.with_results(result).outputs
        if mine is None or signature.outputs is None or mine.spec != signature.outputs.spec:
            raise TaskError(f"`{name}` gives results of several structures", hint="a file gives the same in every call")
    return [tuple(part.shape) for part in tensors], [tuple(part.shape) for part in tensors_of(calls[-1][1])]


def _check_there(model: nn.Module, path: str) -> None:
    known = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    if path not in known:
        near = difflib.get_close_matches(path, known, 1)
        raise TaskError(
            f"`modules` names `{path}`, which the model does not have",
            hint=f"did you mean `{near[0]}`?" if near else f"it has {', '.join(f'`{name}`' for name in known[:8])}",
        )


def _refuse_parameters_outside(model: nn.Module, paths: Mapping[str, str]) -> None:
    inside = {id(part) for path in paths.values() for part in model.get_submodule(path).parameters()}
    outside = [name for name, part in model.named_parameters() if id(part) not in inside]
    if outside:
        more = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        raise TaskError(
            f"`{outside[0]}`{more} belongs to none of the task's `modules`, so it would be in no file",
            hint="move it into the module that uses it, or name its module too",
        )


def _refuse_other_uses(trials: Trials, model: nn.Module, paths: Mapping[str, str], sizes: Sizes) -> None:
    """Refuse a model that reaches into its modules: from a file one gets what its `forward` gives."""
    tried = with_stand_ins(model, {path: model.get_submodule(path) for path in paths.values()})
    try:
        trials.run(tried, sizes)
    except TaskError as error:
        if isinstance(error.__cause__, AttributeError):
            raise TaskError(
                "the model uses something of its modules other than their call: "
                f"{str(error.__cause__).replace('StandIn', 'file')}",
                hint="a file has its `forward` only; do it inside of one of the modules",
            ) from error
        raise
