"""The steps of a recipe, one after the other, and what the report puts beside them."""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from compressor.errors import CompressorError, MethodError
from compressor.measure import size
from compressor.methods.base import Context, Method, State
from compressor.methods.order import order_hint
from compressor.methods.placing import carried_out, controlled
from compressor.nn.halting import forget_steps, step_facts
from compressor.pipeline.backtracking import carry_out
from compressor.pipeline.forms import StepForm
from compressor.pipeline.journal import STEP
from compressor.pipeline.parts import Facts
from compressor.probing import comparison
from compressor.probing.conversions import between
from compressor.probing.plans import PLANS
from compressor.report import Control, Probe, StepReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from compressor.methods.base import Control as Carried
    from compressor.methods.base import StepResult
    from compressor.pipeline.setting import Setting

_PROBE: Facts[Probe] = Facts(Probe)
_CONTROL: Facts[Control] = Facts(Control)


def compress(run: Setting, original: nn.Module) -> tuple[State, list[StepReport]]:
    """Carry out all steps on a copy of `original`; raises `MethodError` with the step in front."""
    generator = torch.Generator().manual_seed(run.recipe.seed)
    context = Context(
        task=run.task,
        original=original,
        device=run.device,
        generator=generator,
        progress=run.progress,
        quick=run.quick,
        team=run.team,
    )
    state = State(copy.deepcopy(original), run.task.masks)
    steps = []
    befores = []
    for index, step in enumerate(run.recipe.steps):
        befores.append((state, replace(context, generator=generator.clone_state())))
        with run.stage(f"step {index + 1}: {step.method}"):
            state, report = _kept_step(run, index, step, state, context)
        steps.append(report)
    models = [*(before.model for before, _ in befores), state.model]
    with run.stage("probes and controls"):
        learned = [_probed(run, index, *pair) for index, pair in enumerate(pairwise(models))]
        besides = [tuple(_controls(run, index, *before)) for index, before in enumerate(befores)]
    return state, [
        step.model_copy(update={"beside": beside, **probed})
        for step, beside, probed in zip(steps, besides, learned, strict=True)
    ]


def _kept_step(run: Setting, index: int, step: Method, before: State, context: Context) -> tuple[State, StepReport]:
    """`_step`, or what the journal has of it."""
    name = f"{STEP}{index + 1} ({step.method})"
    snapshots = run.journal.snapshots(name)

    def made() -> tuple[State, StepReport]:
        run.progress.say(f"step {index + 1} of {len(run.recipe.steps)}: {step.method}")
        return _step(run, index, step, before, replace(context, snapshots=snapshots))

    done = run.journal.part(name, StepForm(run.task, run.device, context.generator), made)
    snapshots.forget()
    return done


def _step(run: Setting, index: int, step: Method, before: State, context: Context) -> tuple[State, StepReport]:
    """The state after a step, and what the report says of it."""
    started = time.perf_counter()
    with in_step(index, step, before.model):
        carried = carry_out(step, before, context)
        result = carried.result
        _check_result(result, carried.step)
    state = result.state
    seconds = time.perf_counter() - started
    parameters, nonzeros = size.count(state.model)
    forget_steps(state.model)
    score = run.score(state.model)
    return state, StepReport(
        index=index,
        method=step.method,
        options=carried.step.model_dump(mode="json", exclude={"method"}),
        changes=result.changes,
        skipped=result.skipped,
        notes=(*result.notes, *carried.notes),
        history=result.history,
        facts={**result.facts, **step_facts(state.model)},
        seconds=seconds,
        parameters=parameters,
        nonzeros=nonzeros,
        score=score,
    )


def _probed(run: Setting, index: int, before: nn.Module, after: nn.Module) -> dict[str, Any]:
    """What the step report says of architectures that the step replaced."""
    conversions, unprobed = between(before, after)
    if conversions and run.probes:
        run.progress.say(f"probing what step {index + 1} converts")
    elif conversions:
        conversions, unprobed = (), (*comparison.unwanted(conversions), *unprobed)
    plan = PLANS["rehearsal" if run.quick else "standard"]
    jobs = 1 if run.quick else run.jobs
    probes = [
        run.journal.part(
            f"{STEP}{index + 1}, probe {place + 1}",
            _PROBE,
            partial(comparison.compare, conversion, plan, jobs=jobs, cache=not run.quick, progress=run.progress),
        )
        for place, conversion in enumerate(conversions)
    ]
    return {"probes": tuple(probes), "unprobed": unprobed}


def _controls(run: Setting, index: int, before: State, context: Context) -> Iterator[Control]:
    """The step's controls and, on each, the rest of the recipe, from the same random numbers on."""
    for name, control in run.recipe.steps[index].controls().items():
        part = f"beside step {index + 1} ({name})"
        fresh = replace(context, generator=context.generator.clone_state())
        yield run.journal.part(part, _CONTROL, partial(_beside, run, index, before, fresh, name, control))
        for place in range(index + 1, len(run.recipe.steps)):
            run.journal.snapshots(f"{part}, step {place + 1}").forget()


def _beside(run: Setting, index: int, before: State, context: Context, name: str, control: Carried) -> Control:
    """One control."""
    run.progress.say(f"beside step {index + 1}: {name}")
    try:
        with torch.random.fork_rng():
            state = controlled(run.recipe.steps[index], control, before, context)
            parameters, nonzeros = size.count(state.model)
            score = run.score(state.model)
            for place, later in enumerate(run.recipe.steps[index + 1 :], start=index + 2):
                snapshots = run.journal.snapshots(f"beside step {index + 1} ({name}), step {place}")
                state = carried_out(later, state, replace(context, snapshots=snapshots)).state
            final = run.score(state.model)
    except CompressorError as error:
        return Control(name=name, note=error.message)
    return Control(name=name, parameters=parameters, nonzeros=nonzeros, score=score, final=final)


@contextmanager
def in_step(index: int, step: Method, model: nn.Module | None = None) -> Iterator[None]:
    """Put the step's number and method in front of what goes wrong in it, and which earlier step may be why."""
    try:
        yield
    except MethodError as error:
        label = f"`steps.{index}` ({step.method})"
        hints = [error.hint, None if model is None else order_hint(model, step.method)]
        hint = "; ".join(hint for hint in hints if hint) or None
        raise MethodError(f"{label}: {error.message}", hint=hint, place=error.place) from error


def _check_result(result: StepResult, step: Method) -> None:
    """A step that changed nothing, or broke a mask, does not pass."""
    state = result.state
    if not result.changes and not result.may_change_nothing:
        looked_at = [name for name, _ in state.model.named_parameters()]
        raise MethodError(
            f"it changed nothing; it looked at {', '.join(f'`{name}`' for name in looked_at[:8])}",
            hint="check `targets` and `ignore`",
        )
    parameters = dict(state.model.named_parameters(remove_duplicate=False))
    for name, mask in state.masks.items():
        if parameters[name].shape != mask.shape or bool(parameters[name].detach()[~mask].any()):
            raise CompressorError(f"`{step.method}` did not hold the mask of `{name}`; this is a bug of the tool")
    broken = [name for name, parameter in parameters.items() if not bool(parameter.isfinite().all())]
    if broken:
        raise MethodError(f"weights are not finite after it: {', '.join(broken[:5])}", hint="lower the learning rate")
