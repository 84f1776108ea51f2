"""A finished run with a file and a step file, and a server that shows it."""

import shutil
import threading

import pytest

from compressor.demo.contents import RUNTIME, contents
from compressor.demo.server import DemoServer
from compressor.runtimes import environments
from tests.folders import BLOBS, carried_out, recipe_of, write_folder

RECIPE = recipe_of("{method: magnitude, prune: units, ratio: 0.5}", exports=["{format: onnx, stream: true}"])


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("demo"), BLOBS, RECIPE)
    carried_out(folder, "run")
    return folder / "run"


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def runtime(tmp_path):
    """ONNX Runtime Web's files, or empty ones where it is not installed."""
    if environments.locate("web") is not None:
        return environments.npm_packages("web") / "onnxruntime-web" / "dist"
    for name in RUNTIME:
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.fixture
def told():
    return []


@pytest.fixture
def server(folder, runtime, told):
    with DemoServer(folder, contents(folder, runtime), told.append, host="127.0.0.1") as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield served
        served.shutdown()
