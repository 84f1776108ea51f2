"""Does it work with the oldest and newest versions of what it needs, and on every Python that is here?

    python benchmarks/versions.py FOLDER [--python VERSION ...] [--find-links FOLDER] [--only NAME ...]

For each Python an environment with the newest versions of all packages, and for the first also one with the oldest
that `pyproject.toml` allows and one without CUDA's libraries where a wheel for the CPU is found in `--find-links`. Each
is made by `uv` in FOLDER, tried, and removed. The wheel is tried without a checkout, from an empty folder: a sample is
copied and compressed, and a model is exported. Then some tests of the checkout run. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("torch", "numpy", "onnx", "onnxruntime", "pydantic")
TESTS = (
    "tests/recipe",
    "tests/exporters/test_shapes.py",
    "tests/methods/test_magnitude.py",
    "tests/streaming/test_step.py",
    "tests/runtimes/test_onnx_runtime.py",
    "tests/test_checkpoint.py",
)
SECONDS = 1500


@dataclass(frozen=True)
class Environment:
    """What is installed."""

    name: str
    python: str
    options: tuple[str, ...]
    """Of `uv pip install`."""


def main() -> None:
    """Try each environment and print a row as it ends."""
    parser = argparse.ArgumentParser(description="Smoke tests over versions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", nargs="+", default=["3.11", "3.12", "3.13", "3.14"])
    parser.add_argument("--find-links", default="")
    parser.add_argument("--only", nargs="*", default=[], help="names of environments")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("| environment | Python | " + " | ".join(SHOWN) + " | wheel alone | tests | size |")
    print("|---|---|" + "---|" * len(SHOWN) + "---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as work:
        said = call([uv(), "build", "--quiet", "--wheel", "--out-dir", work], ROOT)
        wheel = next(Path(work).glob("*.whl"), None)
        if wheel is None:
            sys.exit(said)
        for environment in environments(arguments.python, arguments.find_links):
            if environment.name in (arguments.only or [environment.name]):
                print(row(environment, wheel, arguments.folder), flush=True)


def uv() -> str:
    """Its path."""
    found = shutil.which("uv")
    if found is None:
        sys.exit("uv is not on the path: pip install uv")
    return found


def environments(pythons: list[str], links: str) -> list[Environment]:
    """The newest of all on each Python that is here; on the first also the oldest, and the CPU's PyTorch."""
    here = [python for python in pythons if subprocess.run([uv(), "python", "find", "--no-python-downloads", python],
            capture_output=True, check=False).returncode == 0]  # fmt: skip
    for python in sorted(set(pythons) - set(here)):
        print(f"no Python {python} here", file=sys.stderr)
    if not here:
        sys.exit("none of these Pythons is here")
    oldest = Environment("oldest", here[0], ("--resolution", "lowest-direct"))
    cpu = [Environment("cpu", here[0], ("--find-links", links, "--no-index", "--no-deps", "torch"))] if links else []
    return [oldest, *cpu, *(Environment(f"newest-{python}", python, ()) for python in here)]


def row(environment: Environment, wheel: Path, folder: Path) -> str:
    """A row of the table."""
    place = folder / environment.name
    shutil.rmtree(place, ignore_errors=True)
    python = str(place / "bin" / "python")
    try:
        call([uv(), "venv", "--quiet", "--no-python-downloads", "--python", environment.python, str(place)], folder)
        failed = install(environment, python, wheel)
        if failed:
            return f"| {environment.name} | {environment.python} | not installed: {failed.strip().splitlines()[-1]} |"
        found = versions(python)
        cells = [environment.name, *found, alone(place), tests(python), f"{size(place) / 2**30:.1f} GiB"]
        return f"| {' | '.join(cells)} |"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def install(environment: Environment, python: str, wheel: Path) -> str:
    """Install what is needed, then the wheel by itself; gives what went wrong."""
    install = [uv(), "pip", "install", "--quiet", "--python", python]
    tools = ["pytest>=8", "hypothesis>=6.100", "jsonschema>=4.20"]
    if environment.name == "cpu":  # the two commands of the guide
        return call([*install, *environment.options], ROOT) or call([*install, str(wheel), *tools], ROOT)
    requirements = ["-r", str(ROOT / "pyproject.toml"), *tools]
    return call([*install, *environment.options, *requirements], ROOT) or call(
        [*install, "--no-deps", str(wheel)], ROOT
    )


def versions(python: str) -> list[str]:
    """Of the interpreter and of the packages that are shown."""
    script = (
        "import json, platform; from importlib.metadata import version; "
        f"print(json.dumps([platform.python_version(), *map(version, {SHOWN})]))"
    )
    found: list[str] = json.loads(subprocess.run([python, "-c", script], capture_output=True, check=True).stdout)
    return found


def alone(place: Path) -> str:
    """The wheel in an empty folder: a sample copied and compressed, a model exported; what failed, or how long."""
    tool, start = str(place / "bin" / "compressor"), time.monotonic()
    with tempfile.TemporaryDirectory() as empty:
        for command in (
            "samples copy reber",
            "run units-half --task reber/task.py:GRU --out out --quick",
            "export --task reber/task.py:LSTM --format onnx,ort --out files",
            "report out --format md",
        ):
            failed = call([tool, *command.split()], Path(empty))
            if failed:
                return f"`{command}` failed: {failed.strip().splitlines()[-1]}"
    return f"works ({time.monotonic() - start:.0f} s)"


def tests(python: str) -> str:
    """The last line of pytest. Warnings are no errors here: other versions have other ones."""
    command = [
        python,
        "-m",
        "pytest",
        "-o",
        "addopts=",
        "-o",
        "filterwarnings=",
        "-p",
        "no:cacheprovider",
        "-q",
        "-m",
        "not slow",
    ]
    ran = subprocess.run(
        [*command, *TESTS], cwd=ROOT, env=plain(), capture_output=True, text=True, check=False, timeout=SECONDS
    )
    for line in ran.stdout.splitlines():
        if line.startswith(("FAILED", "ERROR")):
            print(line, file=sys.stderr)
    return ran.stdout.strip().splitlines()[-1].strip("= ")


def call(command: list[str], folder: Path) -> str:
    """Run a command; gives what it said if it failed."""
    ran = subprocess.run(command, cwd=folder, env=plain(), capture_output=True, text=True, check=False, timeout=SECONDS)
    if ran.returncode:
        print(ran.stderr, file=sys.stderr)
    return (ran.stderr or ran.stdout or f"exit status {ran.returncode}") if ran.returncode else ""


def plain() -> dict[str, str]:
    """The environment's variables without those that point to other packages."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    main()
