"""Trace, convert, check and deliver."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compressor.runtimes import environments
from exporters.float_first import deliver_rounded
from exporters.prepare import private_copy, workshop
from exporters.programs.convert import convert
from exporters.programs.trace import Format, trace

if TYPE_CHECKING:
    from compressor.formats import Job
    from compressor.report import Artifact
    from exporters.options import ProgramOptions


def export(form: Format, job: Job[ProgramOptions]) -> Artifact:
    """Trace, convert, check and deliver; see `exporters.litert.export`."""
    import torch

    environments.need(form.name)
    options = job.options
    job = replace(job, path=job.path.with_suffix(f".{options.ending}"))
    with (
        workshop(job.path) as folder,
        torch.random.fork_rng(devices=[]),
        job.progress.bar(f"export {job.path.name}", total=3) as bar,
    ):
        torch.manual_seed(job.seed)
        traced = trace(private_copy(job.model), job.task, options, form)
        bar.advance(note=f"convert in {form.title}")
        candidates = convert(form, traced, folder, job.path, options)
        bar.advance(note="compare with PyTorch")
        artifact = deliver_rounded(candidates, job)
        bar.advance(note="done")
    return artifact
