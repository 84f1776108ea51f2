"""`compressor check`: what a phone's runtime or accelerator takes of an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli import completion
from compressor.cli.arguments import JsonOption, argument, axis_sizes, refuse_folder, shape_option
from compressor.cli.output import columns, emit, emit_json, emit_rich, say, tell
from compressor.errors import ExportError, OutputError, UsageError

if TYPE_CHECKING:
    import onnx

    from compressor.onnx_graphs.partition import Partition
    from compressor.onnx_graphs.remedies import Fixed
    from compressor.onnx_graphs.targets import Target


def check(
    file: Annotated[
        str,
        argument("FILE.onnx", "An ONNX file, of whatever origin.", completion.onnx_files),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="ort-cpu, xnnpack, nnapi, coreml, qnn, ncnn, mnn or litert.",
            show_default=False,
        ),
    ],
    fix: Annotated[bool, typer.Option("--fix", help="Change what the target refuses, and write another file.")] = False,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The changed file. [default: FILE.TARGET.onnx]")
    ] = None,
    shape: Annotated[
        list[str] | None,
        shape_option("Size of an open axis in the changed file."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show which nodes of a file a target takes, which not and why, and what makes it take them.

    Exits with 1 if a node is not taken. A changed file is written only if ONNX Runtime gives the same for both.
    """
    if (out is not None or shape) and not fix:
        raise UsageError("--out and --shape say how a file is changed", hint="add --fix")
    refuse_folder(out)
    sizes = axis_sizes(shape or [])
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file `{file}`", hint="give an exported .onnx file")
    from compressor.onnx_graphs import targets
    from compressor.onnx_graphs.partition import survey

    chosen = targets.get(target)
    proto = _read(path)
    found = survey(proto, chosen)
    result: Fixed | None = None
    differences: tuple[tuple[int, float], ...] = ()
    target_path = Path(out) if out is not None else path.with_name(f"{path.stem}.{target}.onnx")
    left = found
    if fix:
        result, differences = _fix(path, proto, chosen, sizes, target_path)
        left = survey(result.proto, chosen) if differences else found
    facts = _facts(path, chosen, found)
    if result is not None:
        facts["fix"] = _fix_facts(result, chosen, left, differences, target_path)
    if json:
        emit_json(facts)
    else:
        _show(facts)
    if left.refusals:
        raise typer.Exit(1)


def _read(path: Path) -> "onnx.ModelProto":
    """The graph with its weights, once ONNX Runtime has loaded the file in a process of its own."""
    import onnx

    from compressor.runtimes import loading

    loading.ensure(path)
    try:
        return onnx.load_model(path)
    except Exception as error:  # what `loading` let through and onnx does not
        raise ExportError(f"{path} cannot be read: {str(error).splitlines()[0]}", hint="export it again") from error


def _fix(
    path: Path, proto: "onnx.ModelProto", target: "Target", sizes: dict[str, int], out: Path
) -> "tuple[Fixed, tuple[tuple[int, float], ...]]":
    """Apply the remedies, compare, write; nothing is compared or written if no remedy applies."""
    import tempfile

    from compressor.files import write_whole
    from compressor.onnx_graphs import comparison, remedies
    from compressor.runtimes.runtime_file import open_file

    if out.resolve() == path.resolve():
        raise OutputError(f"{out} is the file itself", hint="give another one with --out")
    result = remedies.fix(proto, target, sizes)
    if not any(remedy.applied for remedy in result.remedies):
        return result, ()
    content = result.proto.SerializeToString(deterministic=True)
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder) / out.name
        candidate.write_bytes(content)
        # In processes of their own: a file that ONNX Runtime loads may still end the process that runs it.
        before, after = (open_file(file, runtime="onnxruntime") for file in (path, candidate))
        try:
            differences = comparison.compare(before, after, result.shapes, comparison.masks(proto))
        finally:
            before.close()
            after.close()
    write_whole(out, content)
    return result, differences


def _partition_facts(found: "Partition") -> dict[str, Any]:
    return {"nodes": found.nodes, "taken": found.taken, "partitions": found.partitions}


def _facts(path: Path, target: "Target", found: "Partition") -> dict[str, Any]:
    from compressor.onnx_graphs.remedies import advise

    advice = advise(target, found)
    return {
        "file": str(path),
        "target": target.name,
        "title": target.title,
        "source": target.source,
        **_partition_facts(found),
        "not_taken": [
            {
                "operator": refusal.operator,
                "count": refusal.count,
                "reason": refusal.reason,
                "remedy": advice[refusal.operator, refusal.reason],
                "nodes": list(refusal.nodes),
            }
            for refusal in found.refusals
        ],
        "caveats": dict(found.caveats),
    }


def _fix_facts(
    result: "Fixed", target: "Target", left: "Partition", differences: tuple[tuple[int, float], ...], out: Path
) -> dict[str, Any]:
    return {
        "file": str(out) if differences else None,
        "remedies": [
            {"name": r.name, "what": r.what, "applied": r.applied, "why_not": r.why_not} for r in result.remedies
        ],
        **_partition_facts(left),
        "not_taken": [{"operator": r.operator, "count": r.count, "reason": r.reason} for r in left.refusals],
        "largest_difference": max((difference for _, difference in differences), default=None),
        "comparisons": len(differences),
    }


def taken_of(facts: dict[str, Any]) -> str:
    """How many nodes of a file are taken, and in how many parts: `4 of 6 nodes in 2 partitions`."""
    from compressor.render.format import plural

    taken, nodes = facts["taken"], facts["nodes"]
    if not taken or not nodes:
        return f"none of {plural(nodes, 'node')}"
    whole = (f"all {nodes} nodes" if nodes > 1 else "the only node") if taken == nodes else f"{taken} of {nodes} nodes"
    return f"{whole} in {plural(facts['partitions'], 'partition')}" if taken > 1 else whole


def _show(facts: dict[str, Any]) -> None:
    emit(f"{facts['title']} takes {taken_of(facts)}\n")
    if facts["not_taken"]:
        rows = [
            (part["operator"], str(part["count"]), part["reason"], part["remedy"] or "none known: it runs on the CPU")
            for part in facts["not_taken"]
        ]
        emit_rich(columns(("not taken", "nodes", "because", "remedy"), rows, right=("nodes",)))
    fixed = facts.get("fix")
    if fixed is not None:
        emit("")
        for remedy in fixed["remedies"]:
            state = "done" if remedy["applied"] else f"not done: {remedy['why_not']}"
            tell(f"{remedy['name']} ({remedy['what']}): {state}")
        tell(f"\nbefore: {taken_of(facts)}\nafter:  {taken_of(fixed)}")
        for part in fixed["not_taken"]:
            tell(f"left:   {part['count']} {part['operator']}: {part['reason']}")
        if fixed["file"] is None:
            say(
                "nothing was changed, and no file written: no remedy applies"
                if facts["not_taken"]
                else "nothing to change"
            )
    if fixed is not None and fixed["file"] is not None:
        say(
            f"wrote {fixed['file']}: it agrees with {facts['file']} in ONNX Runtime in {fixed['comparisons']} "
            f"comparisons (largest difference {fixed['largest_difference']:.2g})"
        )
    for operator, note in facts["caveats"].items():
        say(f"not checked, {operator}: {note}")
    say(f"source: {facts['source']}")
