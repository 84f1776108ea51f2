"""Which tools an emulated board takes, and what is said of those that are missing."""

import pytest

from compressor.errors import ExportError
from compressor.runtimes.microcontroller.boards import tools


def put(folder, name, text):
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_every_missing_tool_is_named_with_its_package(path):
    with pytest.raises(
        ExportError, match="missing: `arm-none-eabi-gcc`, `arm-none-eabi-size`, `qemu-system-arm`"
    ) as no:
        tools()
    assert "gcc-arm-none-eabi binutils-arm-none-eabi qemu-system-arm" in no.value.hint


def test_a_compiler_without_its_library_is_not_enough(path):
    put(path, "arm-none-eabi-gcc", "echo libm.a")
    put(path, "arm-none-eabi-size", "exit 0")
    put(path, "qemu-system-arm", "echo QEMU emulator version 7.2.22")
    with pytest.raises(ExportError, match="missing: newlib, the C library") as no:
        tools()
    assert "libnewlib-arm-none-eabi" in no.value.hint
    put(path, "arm-none-eabi-gcc", "echo /usr/lib/libm.a")
    assert tools().describe()[1] == "QEMU 7.2.22"
