"""Every number of a report is about the file that was exported, and none about one that was changed afterwards."""

from __future__ import annotations

import pytest

from compressor.errors import OutputError
from compressor.files import sha256
from compressor.pipeline.measuring import ensure_unchanged
from compressor.report import Part
from tests.report.sample import sample


def files(folder, artifact):
    """An artifact with a step file and parts of both, all of them in `folder`."""
    names = ("model.onnx", "model.onnx.data", "model.step.onnx", "model.step.onnx.data")
    for name in names:
        (folder / name).write_bytes(name.encode())
    whole, data, step, step_data = names
    parts = {name: Part(path=name, bytes=1, sha256=sha256(folder / name), purpose="weights") for name in names}

    def described(name, part, **more):
        update = {"path": name, "sha256": sha256(folder / name), "parts": (parts[part],), **more}
        return artifact.model_copy(update=update)

    return described(whole, data, step=described(step, step_data)), names


@pytest.mark.parametrize("place", range(4))
def test_a_file_that_was_changed_after_it_was_exported_is_an_error(tmp_path, place):
    artifact, names = files(tmp_path, sample().original.artifact)
    ensure_unchanged(tmp_path, [artifact])
    (tmp_path / names[place]).write_bytes(b"another")
    with pytest.raises(OutputError, match=f"error: {names[place]} was changed after it was exported"):
        ensure_unchanged(tmp_path, [artifact])


@pytest.mark.parametrize("place", range(4))
def test_a_file_that_is_gone_is_named(tmp_path, place):
    artifact, names = files(tmp_path, sample().original.artifact)
    (tmp_path / names[place]).unlink()
    with pytest.raises(OutputError, match=f"{names[place]} cannot be read: No such file"):
        ensure_unchanged(tmp_path, [artifact])
