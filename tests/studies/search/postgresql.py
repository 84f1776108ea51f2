"""A PostgreSQL server of the distribution's package, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

_PORT_OF_ANY = 0


def programs():
    """The folder of `initdb` and `pg_ctl`; the test is skipped if there is none."""
    known = shutil.which("initdb")
    folders = [*([Path(known).parent] if known else []), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    if not folders:
        pytest.skip("no PostgreSQL server: apt install postgresql")
    return folders[-1]  # that of the distribution, if there is one


class Server:
    """A server on a free port of this machine."""

    def __init__(self, folder):
        self.folder, self.bin, self.port = folder, programs(), _free_port()
        folder.mkdir()
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(folder, "postgres")
        self._run("initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "--no-sync")
        self.start()

    @property
    def url(self):
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self.folder / "data", "-o", options, "-l", self.folder / "log", "-w", "start")

    def stop(self):
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")

    def _run(self, program, *arguments):
        command = [str(self.bin / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, capture_output=True, cwd="/")


@contextmanager
def server(folder):
    """A server with an empty database, stopped at the end."""
    running = Server(folder)
    try:
        yield running
    finally:
        running.stop()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", _PORT_OF_ANY))
        return probe.getsockname()[1]
