"""Samples whose data are fetched."""

import re

import pytest

from compressor.errors import TaskError


def check_missing(monkeypatch, data, folder, sample, read, missing=""):
    """Reading a sample without its data, in an empty folder, is an error that names the file and how to fetch it."""
    monkeypatch.setattr(data, "CACHE", folder)
    with pytest.raises(TaskError, match=re.escape(f"{missing} is missing")) as caught:
        read()
    assert f"python samples/{sample}/fetch.py" in caught.value.hint
