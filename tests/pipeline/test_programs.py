"""The folder `use/` of a run: each program gives what the file gives, and a wrong file or example is noticed."""

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from compressor import recipe
from compressor.pipeline.run import run
from compressor.render.programs import LANGUAGES
from compressor.report import Report
from compressor.runtimes import environments
from compressor.runtimes.workers import chromium
from compressor.task import loading as tasks
from tests.folders import BLOBS, carried_out, recipe_of, write_folder
from tests.pipeline import compiled
from tests.runtimes import headers

RECIPE = recipe_of(
    "{method: magnitude, prune: units, ratio: 0.5}",
    exports=(
        "{format: onnx, stream: true}",
        "{format: onnx, name: rounded, precision: int8}",
        "{format: onnx, name: alone, programs: false}",
    ),
)
STEMS = ("model", "model.step", "rounded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("programs"), BLOBS, RECIPE)


def _run(folder, name, **options):
    carried_out(folder, name, **options)
    return folder / name


@pytest.fixture(scope="module")
def done(folder):
    return _run(folder, "run")


def program(path):
    spec = importlib.util.spec_from_file_location("program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_onnx_file_has_programs_and_the_report_lists_them(done):
    names = {f"{stem}.{ending}" for stem in STEMS for ending in (*LANGUAGES, "example.json")}
    assert {path.name for path in (done / "use").iterdir()} == names
    report = Report.from_json((done / "report.json").read_text())
    assert {name.removeprefix("use/") for name in report.files if name.startswith("use/")} == names
    assert max(path.stat().st_size for path in (done / "use").iterdir()) < 10_000


@pytest.mark.parametrize("stem", STEMS)
def test_the_python_program_gives_what_the_file_gives(done, stem):
    module = program(done / "use" / f"{stem}.py")
    assert module.check() < 1e-6


def test_the_python_program_runs_by_itself(done):
    ran = subprocess.run(
        [sys.executable, str(done / "use" / "model.step.py")], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("largest difference from the example: ")


def test_a_file_that_gives_something_else_is_noticed(done):
    module = program(done / "use" / "model.step.py")
    example = json.loads((done / "use" / "model.step.example.json").read_text())
    assert len(example["calls"]) == 3
    example["calls"][1]["inputs"], example["calls"][0]["inputs"] = (example["calls"][k]["inputs"] for k in (0, 1))
    other = done.parent / "other.json"
    other.write_text(json.dumps(example))
    assert module.check(example=other) > 1e-3


def test_a_rehearsal_and_a_later_run_without_programs_leave_none(folder, done):
    copy = folder / "again"
    shutil.copytree(done, copy)
    text = (folder / "recipe.yaml").read_text()
    only = text[: text.index("  - {format: onnx, stream")] + "  - {format: onnx, programs: false}\n"
    (folder / "without.yaml").write_text(only)
    chosen = recipe.load(str(folder / "without.yaml"))
    run(chosen, tasks.load(str(folder / "task.py")), copy, device="cpu", quick=True, force=True)
    assert not (copy / "use").exists()


CPP = pytest.mark.skipif(
    None in (compiled.CXX, compiled.library(), headers.find()),
    reason="needs a C++ compiler, and ONNX Runtime's headers: python -m tests.runtimes.headers",
)


@CPP
@pytest.mark.parametrize("stem", STEMS)
def test_the_cpp_program_gives_what_the_file_gives(done, tmp_path, stem):
    example = json.loads((done / "use" / f"{stem}.example.json").read_text())
    program = compiled.built(done / "use", stem, tmp_path, headers.find())
    given = compiled.printed(program, done / f"{stem}.onnx")
    assert len(given) == len(example["calls"])
    assert compiled.largest_difference(given, example) < 1e-6


@CPP
def test_the_cpp_program_runs_by_itself(done, tmp_path):
    shutil.copy(done / "use" / "model.cpp", tmp_path)
    program = compiled.compiled(tmp_path / "model.cpp", headers.find())
    ran = subprocess.run([str(program), str(done / "model.onnx")], capture_output=True, text=True, check=True)
    assert ran.stdout == "logits: 3 numbers\n"


WEB = pytest.mark.skipif(environments.locate("web") is None, reason="needs `compressor runtimes install web`")


@pytest.fixture
def beside(done, tmp_path):
    """The files of the run with ONNX Runtime Web beside them, as `npm install` puts it."""
    shutil.copytree(done, tmp_path / "run")
    (tmp_path / "run" / "node_modules").symlink_to(environments.need("web").packages / "node_modules")
    (tmp_path / "run" / "page.html").write_text("<!doctype html><title>page</title>")
    return tmp_path / "run"


@WEB
@pytest.mark.web
@pytest.mark.parametrize("stem", STEMS)
def test_the_javascript_program_gives_in_node_what_the_file_gives(beside, stem):
    ran = subprocess.run(["node", f"use/{stem}.mjs"], cwd=beside, capture_output=True, text=True, check=True)
    assert float(ran.stdout.partition("example: ")[2]) < 1e-5


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def log_message(self, *_):
        pass


CHECK = """(async () => {
  const ort = await import("/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
  const { check } = await import("/use/STEM.mjs");
  return check(ort, "/STEM.onnx", await (await fetch("/use/STEM.example.json")).json());
})()"""


@WEB
@pytest.mark.web
def test_the_javascript_programs_give_in_a_browser_what_the_files_give(beside):
    handler = functools.partial(Quiet, directory=str(beside))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        chromium.Browser(chromium.find()) as browser,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{server.server_address[1]}/page.html", width=390, height=844)
        differences = [browser.evaluate(CHECK.replace("STEM", stem)) for stem in STEMS]
        server.shutdown()
    assert max(differences) < 1e-5
