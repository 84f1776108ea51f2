"""`python -m tests.runtimes.kotlin` fetches a Kotlin compiler, for the Kotlin programs of `use/`; it runs on Java."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from compressor.errors import CompressorError
from compressor.files import cache_folder
from compressor.runtimes.installing import install_npm

_PACKAGE = "kotlin-compiler@2.4.20"
_API = Path(__file__).parents[1] / "render" / "kotlin_api"


def find() -> Path | None:
    """The compiler's program; None if it, or a Java to run it, is not here."""
    program = _folder() / "node_modules" / "kotlin-compiler" / "bin" / "kotlinc"
    return program if program.is_file() and None not in map(shutil.which, ("java", "javac", "bash")) else None


def compiled(sources: list[Path], work: Path) -> list[str]:
    """Compile programs against the signatures of ONNX Runtime's classes, warnings as errors; gives the classes."""
    api, classes = work / "api", work / "classes"
    subprocess.run(["javac", "-d", str(api), *map(str, sorted(_API.glob("*.java")))], check=True)
    command = ["bash", str(find()), "-Werror", "-cp", str(api), "-d", str(classes), *map(str, sources)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return sorted(path.stem for path in classes.glob("*.class"))


def _folder() -> Path:
    return cache_folder() / "kotlin"


def main() -> None:
    """Fetch it into the user's cache folder, if it is not there."""
    if find() is None:
        try:
            install_npm(_folder(), [_PACKAGE], title="the Kotlin compiler")
        except CompressorError as error:
            sys.exit(f"{error.message}; {error.hint}")
    print(f"the Kotlin compiler is {find()}")


if __name__ == "__main__":
    main()
