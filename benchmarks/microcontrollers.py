"""Models as C on emulated Cortex-M4 and M7: flash, RAM, instructions; writes docs/results/microcontrollers.md.

    python benchmarks/microcontrollers.py [--battery soc_model_legacy.onnx] [--onnx2c PATH] [--only conversions]

The battery model's weights are those of the file that is named: `soc_model_legacy.onnx` of the public repository
aturevsk/SOC_model, of which you need a copy; without it the same layers are trained here to follow a filter. PATH is
onnx2c's program (`benchmarks/onnx2c.py`). `--only conversions` writes that section anew and leaves the others. Needs
gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm. Counts do not depend on how busy this machine is.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import onnx2c  # noqa: E402
from benchmarks.battery import BatteryTask, battery, errors, smaller  # noqa: E402
from benchmarks.board_models import CONVERSIONS, TIMED, Beat, Wake, converted_wake, lstms  # noqa: E402
from compressor.formats import EXPORTERS, Job  # noqa: E402
from compressor.pipeline.run import run as run_recipe  # noqa: E402
from compressor.recipe.loading import load as load_recipe  # noqa: E402
from compressor.runtimes.microcontroller.boards import BOARDS, tools  # noqa: E402
from compressor.runtimes.microcontroller.program import Call  # noqa: E402
from compressor.runtimes.microcontroller.proof import OPTIMISATION, read, verify  # noqa: E402
from compressor.runtimes.microcontroller.running import run as run_there  # noqa: E402
from compressor.surgery.units.choice import Amount  # noqa: E402
from compressor.surgery.units.removal import prune  # noqa: E402
from compressor.task.guard import GuardedTask  # noqa: E402
from compressor.task.loading import load as load_task  # noqa: E402
from compressor.testing import RandomTask, normal  # noqa: E402

if TYPE_CHECKING:
    from compressor.report import Emulated

FORMS: dict[str, dict[str, Any]] = {
    "float": {},
    "int8": {"precision": "int8", "activations": "int16", "quantized_error": 0.9},
    "int4": {"precision": "int4", "activations": "int16", "quantized_error": 0.9},
    "half the units, int8": {"precision": "int8", "activations": "int16", "quantized_error": 0.9},
}
CONVERTED, NEXT = "## Layers that `convert` makes", "## Beside onnx2c"
PAGE = """# On emulated microcontrollers

Made by `python benchmarks/microcontrollers.py{command}`. `format: c`, `math: fast`, compiled with {compiler}
and run on {boards}. Flash is the whole program (model, C library, start-up), RAM the struct,
inputs, outputs and the deepest stack, instructions those of one step, counted by QEMU. **Emulated: numbers and sizes
are right, and none of this is a time**; a processor takes one or more cycles for each instruction.

## Sizes

A step of two models with random weights; inputs of products in 16 bits with `int8` and `int4`. Every row gives on both
boards what it gives on the machine that compared it with PyTorch.

| model | form | flash | RAM | of it stack | instructions a step, M4 | M7 |
|---|---|---|---|---|---|---|
{rows}

{products}

{conversions}

## Beside onnx2c

{onnx2c}

## The public battery model

{battery}

## Japanese vowels

{vowels}
"""


def main() -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--battery", type=Path, help="the public model's soc_model_legacy.onnx")
    parser.add_argument("--onnx2c", type=Path, help="onnx2c's program")
    parser.add_argument("--only", choices=["conversions"], help="the section that is written anew")
    options = parser.parse_args()
    page = ROOT / "docs" / "results" / "microcontrollers.md"
    if options.only:
        page.write_text(_with_section(page.read_text(encoding="utf-8"), conversions_section()), encoding="utf-8")
        return
    weights = options.battery
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {"wake word, GRU 40, 96, 96": Wake(), "beat tracker, conv, LSTM 2 x 150": Beat()}
    found = [sizes(name, model.eval()) for name, model in models.items()]
    rows = [row for some, _ in found for row in some]
    compiler, emulator = tools().describe()
    text = PAGE.format(
        command=f"{' --battery soc_model_legacy.onnx' if weights else ''}{' --onnx2c PATH' if options.onnx2c else ''}",
        compiler=f"{compiler} {OPTIMISATION} and newlib",
        boards=f"{emulator}'s {' and '.join(board.machine for board in BOARDS.values())}",
        rows="\n".join(rows),
        products=_products(found[0][1]),
        conversions=conversions_section(),
        onnx2c=onnx2c_section(options.onnx2c, weights),
        battery=battery_section(weights),
        vowels=vowels_section(),
    )
    page.write_text(text, encoding="utf-8")


def sizes(name: str, model: Any) -> tuple[list[str], dict[str, int]]:
    """The rows of a model, and form -> instructions of a step on a Cortex-M4."""
    half = prune(
        model, {}, [(torch.randn(2, 5, model.features),)], names=["rnn"], amount=Amount(ratio=0.5)
    ).model.eval()
    rows: list[str] = []
    counts: dict[str, int] = {}
    shared: dict[int, Any] = {}
    for form, options in FORMS.items():
        chosen = half if form.startswith("half") else model
        task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(model.features), chosen)
        with tempfile.TemporaryDirectory() as place:
            settings = {"math": "fast", "target": "cortex-m4", **options}
            job = _job(chosen, task, Path(place), settings, shared.setdefault(id(chosen), {}))
            m4 = EXPORTERS["c"].export(job).emulated
            m7 = verify(*read(job.path), BOARDS["cortex-m7"], tools())
        assert m4 is not None
        assert m7.agrees
        rows.append(f"| {name} | {form} | {_cells(m4)} | {m7.instructions:,} |")
        counts[form] = m4.instructions
        print(rows[-1], flush=True)
    return rows, counts


def _with_section(page: str, section: str) -> str:
    """The page with another section between two headings, in front of the next one if it has none yet."""
    if CONVERTED not in page:
        page = page.replace(NEXT, f"{CONVERTED}\n\n{NEXT}")
    before, rest = page.split(CONVERTED)
    return f"{before}{section}\n\n{NEXT}{rest.split(NEXT)[1]}"


def conversions_section() -> str:
    """The wake word with layers of every target of `convert`."""
    rows: list[str] = []
    for name, options in CONVERSIONS.items():
        torch.manual_seed(0)
        model = converted_wake(options).eval()
        task = RandomTask({"x": TIMED}, {"y": TIMED}, normal(model.features), model)
        carried = 4 * sum(value.numel() for _, value in model.rnn.initial_states())
        shared: dict[Any, Any] = {}
        for form in ("float", "int8"):
            with tempfile.TemporaryDirectory() as place:
                settings = {"math": "fast", "target": "cortex-m4", **FORMS[form]}
                job = _job(model, task, Path(place), settings, shared)
                m4 = EXPORTERS["c"].export(job).emulated
                m7 = verify(*read(job.path), BOARDS["cortex-m7"], tools())
            assert m4 is not None
            assert m7.agrees
            rows.append(f"| {name} | {form} | {carried:,} B | {_cells(m4)} | {m7.instructions:,} |")
            print(rows[-1], flush=True)
    compiler, emulator = tools().describe()
    head = "| layers | form | state | flash | RAM | of it stack | instructions a step, M4 | M7 |"
    return "\n".join(
        [
            CONVERTED,
            "",
            "The wake word of above with random layers of each target of `convert` at their default sizes in place of "
            f"its GRU layers (`python benchmarks/microcontrollers.py --only conversions`; {compiler}, {emulator}). "
            "*State* is what a step carries, in floats. Every row gives on both boards what it gives on this machine.",
            "",
            head,
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _products(counts: dict[str, int]) -> str:
    """How many instructions a product takes in the wake word."""
    products = sum(parameter.numel() for name, parameter in Wake().named_parameters() if "weight" in name)
    told = ", ".join(f"{counts[form] / products:.1f} ({form})" for form in ("float", "int8", "int4"))
    return (
        f"The wake word's step has {products:,} products. Instructions for each, on a Cortex-M4 and with all that is "
        f"not a product: {told}. Two products of whole numbers take one instruction, and 4 bits are unpacked by masks."
    )


def onnx2c_section(program: Path | None, weights: Path | None) -> str:
    """The table of `benchmarks/onnx2c.py`, and what is compared."""
    if program is None:
        return "Not measured: no program of onnx2c was named."
    rows = onnx2c.table(program, lstms(weights))
    return (
        "Floats, whole sequences of ten positions (onnx2c has no GRU, and no steps that carry a state; it does not "
        "take the public battery file as it is, but takes what our exporter writes of it), both compiled with the "
        f"same flags for the Cortex-M4; both give there what PyTorch gives, to 1e-5.\n\n{rows}"
    )


def _job(model: nn.Module, task: Any, folder: Path, settings: dict[str, Any], shared: Any = None) -> Job[Any]:
    options = EXPORTERS["c"].options.model_validate(settings)
    return Job(model, task, folder / options.file_name(), options, shared=shared)


def _cells(there: Emulated) -> str:
    return f"{there.flash_bytes:,} B | {there.ram_bytes:,} B | {there.stack_bytes:,} B | {there.instructions:,}"


def _told(there: Emulated) -> str:
    flash, ram = f"{there.flash_bytes:,} B flash", f"{there.ram_bytes:,} B RAM"
    return f"{flash}, {ram}, {there.stack_bytes:,} B of it stack, {there.instructions:,} instructions a step"


def battery_section(weights: Path | None) -> str:
    """The two-layer LSTM as it is and compressed: one program a row."""
    model = battery(weights)
    task = BatteryTask(model)
    head = "| form | flash | RAM | of it stack | instructions a step | mean error | largest |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        for form in ("float", "int8", "int4"):
            job = _job(model, task, Path(place), {"math": "fast", "target": "cortex-m4", **FORMS[form]})
            there = EXPORTERS["c"].export(job).emulated
            lines.append(f"| {form} | {_cells(there)} | {errors(job.path, model, task)} |")
        for ratio in (0.5, 0.75):
            out = Path(place) / f"run{ratio}"
            report = run_recipe(smaller(ratio), GuardedTask(task, __file__), out, probes=False)
            artifact = report.compressed[0].artifact
            met = "" if all(limit.met for limit in report.limits) else " (limits missed)"
            form = f"{ratio:.0%} of the units removed, taught by the original, int8{met}"
            lines.append(f"| {form} | {_cells(artifact.emulated)} | {errors(out / artifact.path, model, task)} |")
    print("\n".join(lines), flush=True)
    return "\n".join(lines)


def vowels_section() -> str:
    """The quickstart's model as C classifies its 370 test sequences on the board."""
    folder = ROOT / "samples" / "japanese_vowels"
    task = load_task(str(folder / "task.py"))
    c = "exports.0={format: c, precision: int8, activations: int16, math: fast, target: cortex-m4}"
    with tempfile.TemporaryDirectory() as place:
        report = run_recipe(load_recipe("quickstart", [c]), task, Path(place) / "run", probes=False)
        measured = report.compressed[0]
        code, _ = read(Path(place) / "run" / measured.artifact.path)
        from vowels import test_data

        (features, lengths), speakers = test_data()
        steps = [(sample, t) for sample, length in enumerate(lengths.tolist()) for t in range(length)]
        calls = [Call([features[sample, t].numpy().reshape(code.inputs[0].shape)], t == 0) for sample, t in steps]
        outcome = run_there(code, calls, BOARDS["cortex-m4"], tools(), flags=[OPTIMISATION])
    last = {sample: outputs[0].ravel() for (sample, _), outputs in zip(steps, outcome.outputs, strict=True)}
    right = sum(int(np.argmax(last[sample])) == int(speaker) for sample, speaker in enumerate(speakers))
    there = measured.artifact.emulated
    text = (
        f"The quickstart's GRU as C (`int8`, inputs in 16 bits): {_told(there)}. "
        f"On the emulated Cortex-M4 it takes {len(steps):,} steps and classifies {right} of "
        f"{len(speakers)} test sequences rightly, {right / len(speakers):.4f}; the file on this machine "
        f"{measured.score.value:.4f}, the original {report.original.score.value:.4f}."
    )
    print(text, flush=True)
    return text


if __name__ == "__main__":
    main()
