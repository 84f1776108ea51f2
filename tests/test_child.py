import os
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
import os, signal, sys, time
for line in sys.stdin:
    word = line.strip()
    if word == "crash":
        print("so it ends", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "hang":
        time.sleep(600)
    if word == "leave":
        sys.exit(3)
    print(os.getpid() if word == "who" else word, flush=True)
"""


@pytest.fixture
def echo():
    service = child.Service(python(ECHO))
    yield lambda word, seconds=60: service.ask(word, seconds=seconds, what="the test")
    service.close()


def test_a_service_answers_several_requests_in_one_process(echo):
    assert echo("who") == echo("who") != str(os.getpid())


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("crash", r"the test failed \(ended by SIGSEGV\); its last lines:\n  so it ends$"),
        ("hang", r"the test took longer than 1 s and was ended"),
        ("leave", r"the test failed \(exit status 3\)"),
    ],
)
def test_a_service_that_ends_says_how_and_answers_the_next_request(echo, word, message):
    with pytest.raises(ExportError, match=message):
        echo(word, 1 if word == "hang" else 60)
    assert echo("again") == "again"


def test_a_service_that_cannot_be_started_is_an_error():
    with pytest.raises(ExportError, match="the test cannot be started"):
        child.Service(["/no/such/program"]).ask("word", seconds=1, what="the test")
