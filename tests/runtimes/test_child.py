import os
import sys
import time

import pytest

from compressor.errors import ExportError
from compressor.runtimes import child
from compressor.runtimes.resources import gib, memory


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
import os, signal, struct, sys, time
while len(head := sys.stdin.buffer.read(8)) == 8:
    word = sys.stdin.buffer.read(*struct.unpack("<Q", head))
    if word == b"crash":
        print("so it ends", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"hang":
        time.sleep(600)
    if word == b"leave":
        sys.exit(3)
    answer = str(os.getpid()).encode() if word == b"who" else word
    sys.stdout.buffer.write(struct.pack("<Q", len(answer)) + answer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def echo():
    server = child.Server(python(ECHO), what="the test")
    yield server
    server.close()


def test_a_server_answers_several_requests_in_one_process(echo):
    assert echo.ask(b"who", seconds=60) == echo.ask(b"who", seconds=60) != str(os.getpid()).encode()
    long = bytes(range(256)) * 5000
    assert echo.ask(long, seconds=60) == long
    assert echo.ask(b"", seconds=60) == b""


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (b"crash", r"the test failed \(ended by SIGSEGV\); its last lines:\n  so it ends$"),
        (b"hang", r"the test took longer than 1 s and was ended"),
        (b"leave", r"the test failed \(exit status 3\)"),
    ],
)
def test_a_server_that_ends_says_how_and_answers_nothing_more(echo, word, message):
    with pytest.raises(ExportError, match=message):
        echo.ask(word, seconds=1 if word == b"hang" else 60)
    assert not echo.alive
    with pytest.raises(ExportError, match="the test was ended before"):
        echo.ask(b"again", seconds=60)


def test_a_server_ends_with_its_owner_and_not_with_a_fork_of_it(echo):
    before = echo.ask(b"who", seconds=60)
    forked = os.fork()
    if not forked:
        os._exit(int(echo.alive) + (echo.close() or 0))
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0
    assert echo.ask(b"who", seconds=60) == before


def test_a_server_that_cannot_be_started_is_an_error():
    with pytest.raises(ExportError, match="the test cannot be started"):
        child.Server(["/no/such/program"], what="the test")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are Linux's")
@pytest.mark.parametrize(
    ("code", "manner"),
    [
        ("b'x' * 10**10", "exit status 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
    ],
)
def test_memory_is_limited_and_the_message_names_the_limit(code, manner):
    with pytest.raises(ExportError) as caught:
        child.run(python(code), seconds=60, what="the test", memory=1 << 30)
    assert f"the test failed ({manner}; it may take 1 GiB of memory)" in caught.value.message
    server = child.Server(python(f"import sys; sys.stdin.buffer.read(8); {code}"), what="the test", memory=1 << 30)
    with pytest.raises(ExportError, match=rf"{manner}; it may take 1 GiB of memory"):
        server.ask(b"", seconds=60)


def test_without_another_limit_a_program_may_take_what_the_machine_has():
    with pytest.raises(ExportError) as caught:
        child.run(python("b'x' * 10**16"), seconds=60, what="the test")
    if sys.platform == "linux":
        assert f"it may take {gib(memory())} of memory" in caught.value.message
