"""Only who has the token gets an answer, only listed files are given, and only results of the page are kept."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

from compressor.demo import results
from compressor.demo.contents import contents
from compressor.demo.server import MOST_CONNECTIONS, DemoServer
from compressor.errors import UsageError
from tests.demo.test_results import sent


def ask(server, address, content=None, **headers):
    """Status, headers and body; `address` is below the token unless it begins with a slash."""
    place = urlsplit(server.address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    path = address if address.startswith("/") else place.path + address
    connection.request("GET" if content is None else "POST", path, content, headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_the_page_its_facts_and_the_files_of_the_run_are_given(server, folder):
    status, headers, page = ask(server, "")
    assert (status, headers["Content-Type"], b"page.js" in page) == (200, "text/html; charset=utf-8", True)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert [one["file"] for one in json.loads(ask(server, "facts.json")[2])["files"]] == [
        "model.onnx",
        "model.step.onnx",
    ]
    assert ask(server, "run/model.onnx")[2] == (folder / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/facts.json",
        "/wrong/",
        "/wrong/facts.json",
        "run/report.json",
        "run/../report.json",
        "run/model.safetensors",
        "../run/model.onnx",
        "run//etc/passwd",
        "run/%2e%2e/report.json",
        "page.html/..",
    ],
)
def test_nothing_else_is(server, address):
    assert ask(server, address)[::2] == (404, b"there is nothing here\n")


def test_a_result_is_kept_and_told(server, folder, told):
    assert ask(server, "results", sent())[::2] == (200, b"kept\n")
    assert [one.milliseconds for one in results.read(folder)] == [[2.0, 1.0, 3.0]]
    assert told == results.read(folder)


@pytest.mark.parametrize(
    ("address", "content", "status"),
    [
        ("/results", sent(), 404),
        ("/wrong/results", sent(), 404),
        ("facts.json", sent(), 404),
        ("results", b"x", 400),
        ("results", sent(file="original.onnx"), 400),
        ("results", b" " * (results.MOST_BYTES + 1), 413),
    ],
)
def test_what_is_no_result_is_refused_and_nothing_is_written(server, folder, told, address, content, status):
    before = {path.name for path in folder.iterdir()}
    assert ask(server, address, content)[0] == status
    assert ({path.name for path in folder.iterdir()}, told) == (before, [])


@pytest.mark.parametrize("length", ["-5", "", "x", "1e3", "+5", "9" * 5000, "0x10", "1_0"])
def test_a_length_that_is_none_is_refused(server, length):
    assert ask(server, "results", sent(), **{"Content-Length": length})[0] == 413


def said(server, content):
    """What a server answers to bytes that may be no HTTP at all; empty if it closes the connection."""
    place = urlsplit(server.address)
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_nothing_that_a_stranger_sends_stops_it_or_reaches_the_terminal(server, folder, told, capfd):
    draw, before = random.Random(3), {path.name for path in folder.iterdir()}
    post = b"POST " + urlsplit(server.address).path.encode() + b"results HTTP/1.1\r\n"
    heads = [b"", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 70_000, b"\x16\x03\x01" + draw.randbytes(200)]
    heads += [
        b"GET /\x1b]52;c;eA==\x07 HTTP/1.1\r\n\r\n",
        b"DELETE / HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe/ HTTP/1.1\r\n\r\n",
    ]
    heads += [
        post + b"Content-Length: 900\r\n\r\nshort",
        post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
    heads += [post + b"Content-Length: 60000\r\n\r\n" + b"[" * 60_000, b"A: b\r\n" * 300]
    heads += [draw.randbytes(draw.randrange(1, 400)) for _ in range(30)]
    for head in heads:
        assert not said(server, head).startswith(b"HTTP/1.1 200")
    assert ask(server, "facts.json")[0] == 200
    assert ({path.name for path in folder.iterdir()}, told) == (before, [])
    assert capfd.readouterr() == ("", "")


def test_connections_that_say_nothing_take_no_more_than_there_is_room_for(server):
    place = urlsplit(server.address)
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS + 8):
            stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=20))
        last = stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=20))
        assert last.recv(1) == b""
        assert sum(thread.name.startswith("Thread") for thread in threading.enumerate()) < MOST_CONNECTIONS + 8
    for _ in range(100):
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(server, "facts.json")[0] == 200:
                return
        time.sleep(0.05)
    pytest.fail("there is no room again")


def test_a_port_that_is_taken_is_refused(server, folder, runtime):
    with pytest.raises(UsageError, match=r"cannot listen on 127\.0\.0\.1:") as caught:
        DemoServer(folder, contents(folder, runtime), print, host="127.0.0.1", port=server.server_address[1])
    assert caught.value.hint == "give another --port"


def test_every_server_has_another_token(server, folder, runtime):
    with DemoServer(folder, contents(folder, runtime), print, host="127.0.0.1") as other:
        assert other.token != server.token
        assert len(other.token) >= 16
