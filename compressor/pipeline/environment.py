"""The machine, its devices and the versions that a run had."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from compressor import __version__
from compressor.errors import UsageError
from compressor.pipeline.fingerprints import PACKAGES
from compressor.report import Environment


def environment(device: torch.device) -> Environment:
    """The machine and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Environment(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        compressor=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        device=name,
        versions={package: metadata.version(package) for package in PACKAGES},
    )


def find_device(name: str) -> torch.device:
    """The device of `--device`; raises `UsageError` if it is unknown or missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UsageError("there is no CUDA device", hint="use --device auto or cpu; `compressor doctor` tells more")
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"unknown device `{name}`", hint="use auto, cpu or cuda")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
