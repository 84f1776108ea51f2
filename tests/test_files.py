"""Files are written whole or not at all."""

import pytest

from compressor.errors import OutputError
from compressor.files import write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("older")
    with pytest.raises(OutputError, match=r"cannot write .*missing/kept: No such file or directory"):
        write_whole(tmp_path / "missing" / "kept", b"newer")
    write_whole(tmp_path / "kept", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"newer"
