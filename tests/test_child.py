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


ECHO = """
import struct, sys, os, time, signal
print("talks before it is asked", file=sys.stderr, flush=True)
while prefix := sys.stdin.buffer.read(8):
    asked = sys.stdin.buffer.read(struct.unpack("<Q", prefix)[0])
    if asked == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if asked == b"hang":
        time.sleep(60)
    sys.stdout.buffer.write(struct.pack("<Q", len(asked)) + asked[::-1])
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def server():
    served = child.Server([sys.executable, "-c", ECHO], what="the echo")
    yield served
    served.close()


def test_a_server_answers_requests_that_are_larger_than_a_pipe(server):
    large = bytes(range(256)) * 4096
    assert server.ask(large, seconds=60) == large[::-1]
    assert server.ask(b"", seconds=60) == b""


def test_a_request_that_kills_a_server_names_the_signal_and_its_last_lines(server):
    with pytest.raises(ExportError, match=r"the echo failed \(ended by SIGSEGV\)") as caught:
        server.ask(b"crash", seconds=60, hint="try another")
    assert "talks before it is asked" in caught.value.message
    assert caught.value.hint == "try another"
    with pytest.raises(ExportError, match="was ended before"):
        server.ask(b"again", seconds=60)


def test_a_server_that_hangs_is_ended(server):
    process = server._process
    with pytest.raises(ExportError, match=r"took longer than 0\.5 s and was ended"):
        server.ask(b"hang", seconds=0.5)
    assert process.poll() is not None


def test_a_server_that_cannot_be_started_is_an_error():
    with pytest.raises(ExportError, match="the echo cannot be started"):
        child.Server(["/nowhere/at/all"], what="the echo")
