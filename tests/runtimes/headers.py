"""`python -m tests.runtimes.headers` fetches ONNX Runtime's headers, for the C++ programs of `use/`.

They come with a Debian package of an older version. The C API only grows, and a program asks the library for the
version of its headers, so those of any newer library read them too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from compressor.errors import CompressorError
from compressor.files import cache_folder
from compressor.runtimes.emulation import packages

_INCLUDE = Path("usr/include/onnxruntime")


def find() -> Path | None:
    """The folder to include; None if it has not been fetched."""
    folder = _folder() / _INCLUDE
    return folder if (folder / "onnxruntime_cxx_api.h").is_file() else None


def _folder() -> Path:
    return cache_folder() / "onnxruntime-headers"


def main() -> None:
    """Fetch them into the user's cache folder, if they are not there."""
    if find() is None:
        try:
            packages.unpack(_folder(), None, packages.own_arch(), ("libonnxruntime-dev",), alone=True)
        except CompressorError as error:
            sys.exit(f"{error.message}; {error.hint}")
    print(f"ONNX Runtime's headers are in {find()}")


if __name__ == "__main__":
    main()
