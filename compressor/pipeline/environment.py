"""The machine, its devices and the versions that a run had."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import UsageError
from compressor.nn.accelerators import CPU, KNOWN, accelerator, device_name
from compressor.pipeline.fingerprints import PACKAGES
from compressor.report import Environment
from compressor.version import VERSION

if TYPE_CHECKING:
    import torch


def environment(device: torch.device) -> Environment:
    """The machine and the versions."""
    return Environment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        compressor=VERSION,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        device=device_name(device),
        versions={package: metadata.version(package) for package in PACKAGES},
    )


def find_device(name: str) -> torch.device:
    """The device of `--device`: `auto` is the accelerator if there is one, else the CPU.

    Raises:
        UsageError: It is unknown or missing.
    """
    present = accelerator()
    if name == "cpu" or (name == "auto" and present is None):
        return CPU
    if present is not None and name in ("auto", present.type):
        return present
    here = f"auto, cpu or {present.type}" if present else "auto or cpu"
    if name in KNOWN:
        raise UsageError(f"there is no `{name}` device", hint=f"use --device {here}; `compressor doctor` tells more")
    raise UsageError(f"unknown device `{name}`", hint=f"use auto, cpu, {', '.join(KNOWN[:-1])} or {KNOWN[-1]}")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
