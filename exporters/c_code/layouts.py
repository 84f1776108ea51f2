"""The two files of a model as what a tool chain takes: a zip archive with one folder, to be unpacked into a project."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporters.c_code.sources import Sources

Layout = Literal["cmake", "arduino", "esp-idf", "zephyr"]
_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""Of all files in an archive, so that the same files give the same bytes."""


def archive(layout: Layout, written: Sources, code_name: str) -> bytes:
    """A zip archive.

    Args:
        layout: Of which tool chain.
        written: The model's code and header.
        code_name: Of the `.c` file.
    """
    files, source = _LAYOUTS[layout](written, code_name)
    files = {**files, f"{source}{code_name}": written.code, f"{source}{written.header_name}": written.header}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as target:
        for name, text in sorted(files.items()):
            target.writestr(zipfile.ZipInfo(f"{written.name}/{name}", _DATE), text)
    return data.getvalue()


def _cmake(written: Sources, code_name: str) -> tuple[dict[str, str], str]:
    text = f"""# add_subdirectory({written.name}), then target_link_libraries(your_program {written.name})
cmake_minimum_required(VERSION 3.13)
add_library({written.name} STATIC {code_name})
target_include_directories({written.name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
set_target_properties({written.name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON)
if(UNIX OR CMAKE_SYSTEM_NAME STREQUAL "Generic")
  target_link_libraries({written.name} PUBLIC m)
endif()
"""
    return {"CMakeLists.txt": text}, ""


def _arduino(written: Sources, code_name: str) -> tuple[dict[str, str], str]:
    del code_name
    properties = f"""name={written.name}
version=1.0.0
author=edge-compressor
maintainer=edge-compressor
sentence=A sequence model as C99.
paragraph=Generated; export the model again to change it.
category=Data Processing
url=
architectures=*
includes={written.header_name}
"""
    arrays = "".join(
        f"static {item.kind} {item.name}[{max(item.size, 1)}];\n" for item in (*written.inputs, *written.outputs)
    )
    arguments = ", ".join(["&state", *(item.name for item in (*written.inputs, *written.outputs))])
    output = written.outputs[0].name if written.outputs else "0"
    sketch = f"""#include <{written.header_name}>

static {written.name}_state state;
{arrays}
void setup() {{
  pinMode(LED_BUILTIN, OUTPUT);
  {written.name}_init(&state);
}}

void loop() {{
  /* write what your sensor gives into the inputs here */
  {written.call}({arguments});
  digitalWrite(LED_BUILTIN, {output}[0] > 0 ? HIGH : LOW);
}}
"""
    example = f"examples/{written.name}_blink/{written.name}_blink.ino"
    return {"library.properties": properties, example: sketch}, "src/"


def _esp_idf(written: Sources, code_name: str) -> tuple[dict[str, str], str]:
    del written
    return {"CMakeLists.txt": f'idf_component_register(SRCS "{code_name}" INCLUDE_DIRS ".")\n'}, ""


def _zephyr(written: Sources, code_name: str) -> tuple[dict[str, str], str]:
    lines = f"""# needs a C library with mathematics: CONFIG_PICOLIBC=y or CONFIG_NEWLIB_LIBC=y
zephyr_include_directories(.)
zephyr_library_named({written.name})
zephyr_library_sources({code_name})
"""
    return {"CMakeLists.txt": lines, "zephyr/module.yml": f"name: {written.name}\nbuild:\n  cmake: .\n"}, ""


_LAYOUTS: Final[Mapping[Layout, Callable[[Sources, str], tuple[dict[str, str], str]]]] = {
    "cmake": _cmake,
    "arduino": _arduino,
    "esp-idf": _esp_idf,
    "zephyr": _zephyr,
}
"""Layout -> its files besides the model's, and the folder of these."""
