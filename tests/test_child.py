import sys
import time

import pytest

from compressor import child
from compressor.errors import ExportError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_a_program_prints_is_given_back():
    assert child.run(python("print('yes')"), seconds=60, what="the test") == "yes\n"


def test_a_failure_names_its_manner_and_last_lines():
    code = "import sys; [print(n, file=sys.stderr) for n in range(100)]; sys.exit(3)"
    with pytest.raises(ExportError) as caught:
        child.run(python(code), seconds=60, what="the test")
    assert "the test failed (exit status 3); its last lines:" in caught.value.message
    assert caught.value.message.endswith("\n  99")
    assert "\n  91\n" not in caught.value.message


def test_a_crash_names_the_signal():
    with pytest.raises(ExportError, match=r"ended by SIGSEGV"):
        child.run(python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), seconds=60, what="the test")


def test_what_hangs_is_ended_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        f"late = \"import time; time.sleep(4); open({str(tmp_path / 'late')!r}, 'w')\"\n"
        "subprocess.Popen([sys.executable, '-c', late])\n"
        "print('begun', flush=True)\n"
        "time.sleep(600)"
    )
    with pytest.raises(ExportError, match=r"took longer than 2 s and was ended; its last lines:\n  begun"):
        child.run(python(code), seconds=2, what="the test")
    time.sleep(4)
    assert not (tmp_path / "late").exists()


def test_a_program_that_is_missing_is_an_error():
    with pytest.raises(ExportError, match="the test cannot be started"):
        child.run(["/no/such/program"], seconds=1, what="the test")
