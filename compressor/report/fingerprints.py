"""What a result depends on, as hashes: the task's code, the model, the data, the versions."""

from __future__ import annotations

from compressor.report.fact import Fact


class Fingerprints(Fact):
    """What the results of a run follow from, besides its recipe.

    Every hash is a SHA-256 in hexadecimal digits. Paths are relative to the folder of the task file; of files outside
    of it absolute, with `~` for the user's folder.
    """

    code: dict[str, str]
    """The task file, and the modules that it imports from its folder, by path."""
    model: str
    """Of the model's structure and weights, whatever checkpoint they come from."""
    samples: str
    """Of the inputs on which the task was tried."""
    data: dict[str, str]
    """Files that the task opened while it was loaded and tried, by path."""
    versions: dict[str, str]
    """Of Python, the tool and the packages whose results go into files."""
