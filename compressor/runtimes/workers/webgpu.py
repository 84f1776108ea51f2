"""ONNX Runtime Web on a graphics processor: reads `.onnx` in a page of a headless Chromium, by WebGPU.

Operators that it has no WebGPU code for, recurrent ones among them, run by WebAssembly.
"""

import os
import sys
from pathlib import Path

os.environ["COMPRESSOR_WEB_PROVIDER"] = "webgpu"
sys.path[:0] = [str(Path(__file__).resolve().parent)]

from web import MEASURES_MEMORY, VERSION, File  # type: ignore[import-not-found]  # noqa: E402

__all__ = ["MEASURES_MEMORY", "VERSION", "File"]
