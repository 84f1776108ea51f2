"""The samples that come with the package: those whose data is in it, or in a package of PyPI."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from compressor.errors import OutputError, UsageError
from compressor.files import writing


@dataclass(frozen=True)
class Sample:
    """A task with its weights."""

    name: str
    """Of its folder."""
    purpose: str
    needs: str
    """What has to be installed besides; empty if nothing."""
    files: tuple[str, ...]
    task: str
    """For `--task`, in its folder."""


SAMPLES: Final = {
    sample.name: sample
    for sample in (
        Sample(
            "japanese_vowels",
            "who said it? a GRU and an LSTM layer of 128 units over speech features",
            "pip install aeon",
            (
                "README.md",
                "task.py",
                "vowels.py",
                "padded.py",
                "turns.py",
                "train.py",
                *(f"{name}.safetensors" for name in ("gru", "lstm", "tagger")),
            ),
            "task.py",
        ),
        Sample(
            "reber",
            "is a string valid in a grammar? three layers of 50 tanh, ReLU, GRU or LSTM units",
            "",
            (
                "README.md",
                "task.py",
                "grammar.py",
                "train.py",
                *(f"{cell}.safetensors" for cell in ("tanh", "relu", "gru", "lstm")),
            ),
            "task.py:GRU",
        ),
    )
}


def library() -> Path:
    """The folder of samples: inside the package in a wheel, beside it in a checkout or an editable install."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "samples"
    return inside if inside.is_dir() else package.parent / "samples"


def find(name: str) -> Sample:
    """The sample of that name; raises `UsageError` if there is none."""
    try:
        return SAMPLES[name]
    except KeyError:
        raise UsageError(f"no sample `{name}` is shipped", hint=f"one of {', '.join(SAMPLES)}") from None


def copy(sample: Sample, into: Path, *, force: bool = False) -> Path:
    """Copy a sample into a folder, as a folder of its name.

    Args:
        sample: The sample.
        into: The folder; made if it is missing.
        force: Overwrite files that are there.

    Returns:
        The sample's new folder.

    Raises:
        OutputError: It is there already, or cannot be written.
    """
    target = into / sample.name
    if target.exists() and not force:
        raise OutputError(f"`{target}` exists", hint="give another folder, or --force")
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for name in sample.files:
            shutil.copyfile(library() / sample.name / name, target / name)
    return target
