"""`compressor probe`: what an architecture can no longer learn that replaces another."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, SetOption, announce, refuse_folder, task_option
from compressor.cli.output import emit_json, emit_rich, say
from compressor.errors import UsageError
from compressor.nn.converted.target import WORDS as CONVERSIONS

if TYPE_CHECKING:
    from compressor.probing.architecture import Conversion
    from compressor.probing.tasks import ProbeTask
    from compressor.progress import Progress
    from compressor.recipe.model import Recipe
    from compressor.report import ProbeFile


def probe(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="Probe what its steps convert. Name of a shipped recipe or path of a YAML file.",
            autocompletion=completion.recipe_names,
            show_default=False,
        ),
    ] = None,
    task: Annotated[str | None, task_option("With --recipe: the task whose model is converted.")] = None,
    architectures: Annotated[
        str | None,
        typer.Option(
            "--architectures",
            metavar="A,B",
            help="Compare two without a task: attention, aaren, rnn_tanh, rnn_relu, gru, lstm, "
            f"{', '.join(CONVERSIONS)}.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None, typer.Option("--layers", min=1, max=4, metavar="N", help="With --architectures. [default: 2]")
    ] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, max=4, metavar="N", help="With --architectures. [default: 4]")
    ] = None,
    overrides: SetOption = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Wider, longer, more steps and seeds: hours of one core.")
    ] = False,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--more", metavar="WORD", help="Train these tasks as well: selectivity, icll.", show_default=False
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, max=100, metavar="N", help="[default: 3, or 5 with --thorough]")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, metavar="N", help="The first of them.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, metavar="N", help="Processes. [default: one for each processor]")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Train again what was trained before.")] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Write the results.")] = None,
    json: JsonOption = False,
) -> None:
    """Train two architectures identically on small synthetic tasks, and compare what they learn.

    With --task and --recipe, the two are a layer of the model and what a step of the recipe replaces it with. The
    tasks are to recall what came with a key, to keep track of a state, and to remember over a long gap.
    """
    if (architectures is None) == (recipe is None):
        raise UsageError(
            "probe takes either a recipe and its task, or two architectures",
            hint="--recipe RECIPE --task FILE.py, or --architectures gru,lstm",
        )
    if recipe is not None and task is None:
        raise UsageError("--recipe needs the task whose model it converts", hint="add --task FILE.py")
    refuse_folder(out)
    _refuse({"--layers": layers, "--heads": heads} if recipe else {"--task": task, "--set": overrides}, recipe)
    # everything that can be said without torch is said before it is loaded
    chosen = _recipe(recipe, overrides) if recipe is not None else None
    if task is None:
        say("loading the probes")
    else:
        announce(task)
    from dataclasses import replace

    from compressor.cli.progress import Terminal
    from compressor.probing import comparison as probing
    from compressor.probing.plans import PLANS

    plan = PLANS["thorough" if thorough else "standard"]
    plan = replace(plan, tasks=(*plan.tasks, *_more(more or [])), seeds=seeds or plan.seeds, first_seed=seed)
    with Terminal() as progress:
        conversions = (
            _of_architectures(architectures or "", layers or 2, heads or 4)
            if chosen is None
            else _of_recipe(chosen, task or "", progress)
        )
        found = [
            probing.compare(conversion, plan, jobs=jobs or os.cpu_count() or 1, cache=not no_cache, progress=progress)
            for conversion in conversions
        ]
    _give(probing.file(found), out, json=json)


def _more(words: list[str]) -> "list[ProbeTask]":
    """The tasks that these words stand for."""
    from compressor.probing.plans import MORE_TASKS

    for word in words:
        if word not in MORE_TASKS:
            raise UsageError(f"unknown probe `{word}`", hint=f"probes: {', '.join(MORE_TASKS)}")
    return [task for word in dict.fromkeys(words) for task in MORE_TASKS[word]]


def _refuse(given: dict[str, object], recipe: str | None) -> None:
    owner = "--architectures" if recipe else "--recipe"
    for option, value in given.items():
        if value is not None:
            raise UsageError(f"`{option}` belongs to {owner}", hint=f"leave it out, or use {owner}")


def _recipe(recipe: str, overrides: list[str] | None) -> "Recipe":
    from compressor import recipe as recipes

    return recipes.load(recipe, overrides or ())


def _of_recipe(recipe: "Recipe", task: str, progress: "Progress") -> "list[Conversion]":
    """What the recipe's steps convert in the task's model, found by a rehearsal of them."""
    import torch

    from compressor.methods.base import Context, State
    from compressor.methods.retrain import Retrain
    from compressor.probing.conversions import between
    from compressor.task import loading as tasks

    loaded = tasks.load(task)
    model = loaded.model()
    generator = torch.Generator().manual_seed(recipe.seed)
    context = Context(loaded, model, torch.device("cpu"), generator, progress, quick=True)
    state, found = State(model), list["Conversion"]()
    for step in recipe.steps:
        if isinstance(step, Retrain):  # it leaves the layers what they are
            continue
        step.check_task(state.model, context.task)
        before, state = state, step.apply(state, context).state
        conversions, unprobed = between(before.model, state.model)
        found += conversions
        for skip in unprobed:
            say(f"not probed: {skip.name}, replaced by `{step.method}`: {skip.reason}")
    if not found:
        raise UsageError(
            f"`{recipe.name}` has no step that replaces an architecture of this model, or none that can be probed",
            hint="such as `random_graph` and `aaren`; most steps keep what a layer is and change its size",
        )
    return found


def _of_architectures(text: str, layers: int, heads: int) -> "list[Conversion]":
    from compressor.probing.architecture import Conversion, named

    words = [word.strip() for word in text.split(",")]
    if len(words) != 2 or words[0] == words[1]:
        raise UsageError(
            f"--architectures takes two different words with a comma between, not `{text}`", hint="such as lstm,gru"
        )
    first, second = (named(word, layers=layers, heads=heads) for word in words)
    return [Conversion((), first, second)]


def _give(found: "ProbeFile", out: Path | None, *, json: bool) -> None:
    from compressor.files import write_whole

    if out is not None:
        write_whole(out, (found.model_dump_json(indent=2) + "\n").encode())
        say(f"wrote {out}")
    if json:
        emit_json(found.model_dump(mode="json"))
        return
    from compressor.render import terminal
    from compressor.render.blocks import Statements
    from compressor.render.sections.probes import group, statements, verdict

    said = [
        (group(part), Statements((verdict(part, part.converted), *statements(part, part.converted))))
        for part in found.probes
    ]
    emit_rich(*(part for blocks in said for part in terminal.draw(blocks)))
