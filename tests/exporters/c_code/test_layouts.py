"""Archives for tool chains: CMake's is built here; the others have the files and names that theirs look for."""

import io
import shutil
import subprocess
import zipfile

import onnx_ir as ir
import pytest
import yaml
from onnx import helper

from exporters.c_code.files import write
from exporters.c_code.layouts import archive
from tests.compilers import CC, needs_compiler
from tests.exporters.c_code.test_operators import graph

MAIN = """
#include "my_model.step.h"
#include <stdio.h>
int main(void)
{
    static my_model_state state;
    const float x[2] = {-1.5f, 2.0f};
    float y[2];
    my_model_init(&state);
    my_model_run(&state, x, y);
    printf("%g %g", (double)y[0], (double)y[1]);
    return 0;
}
"""


def written():
    model = graph([helper.make_node("Neg", ["x"], ["y"])], [("x", [2])], [("y", [2])])
    return write(ir.from_proto(model), "my_model.step", None, rounding=None, facts=["a test"])


def unpacked(layout, folder):
    sources = written()
    data = archive(layout, sources, "my_model.step.c")
    assert data == archive(layout, sources, "my_model.step.c")
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        packed.extractall(folder)
        return sorted(packed.namelist())


@needs_compiler
@pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake")
def test_a_program_of_cmake_links_the_model(tmp_path):
    unpacked("cmake", tmp_path)
    (tmp_path / "main.c").write_text(MAIN)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(blink C)\nadd_subdirectory(my_model)\n"
        "add_executable(blink main.c)\ntarget_link_libraries(blink my_model)\n"
    )
    for arguments in (["-S", ".", "-B", "build"], ["--build", "build"]):
        subprocess.run(["cmake", *arguments], cwd=tmp_path, check=True, capture_output=True)
    said = subprocess.run([tmp_path / "build" / "blink"], check=True, capture_output=True, text=True).stdout
    assert said == "1.5 -2"


def test_an_arduino_library_has_its_properties_and_a_sketch_of_its_functions(tmp_path):
    names = unpacked("arduino", tmp_path)
    assert names == [
        "my_model/examples/my_model_blink/my_model_blink.ino",
        "my_model/library.properties",
        "my_model/src/my_model.step.c",
        "my_model/src/my_model.step.h",
    ]
    properties = dict(line.split("=", 1) for line in (tmp_path / names[1]).read_text().splitlines())
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url"} <= properties.keys()
    assert properties["includes"] == "my_model.step.h"
    assert "my_model_run(&state, x, y);" in (tmp_path / names[0]).read_text()


@needs_compiler
def test_the_sketch_of_arduino_is_a_program(tmp_path):
    names = unpacked("arduino", tmp_path)
    board = "#include <stdint.h>\n#define OUTPUT 1\n#define HIGH 1\n#define LOW 0\n#define LED_BUILTIN 13\n"
    board += "void pinMode(int, int) {}\nvoid digitalWrite(int, int) {}\n"
    rest = "\nint main() { setup(); loop(); return 0; }\n"
    (tmp_path / "main.cpp").write_text(board + (tmp_path / names[0]).read_text() + rest)
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler")
    source = tmp_path / "my_model" / "src"
    subprocess.run([CC, "-c", "-o", "m.o", str(source / "my_model.step.c")], cwd=tmp_path, check=True)
    command = ["g++", "-Wall", "-Werror", f"-I{source}", "main.cpp", "m.o", "-lm", "-o", "sketch"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert subprocess.run([tmp_path / "sketch"], check=False).returncode == 0


def test_a_component_of_esp_idf_registers_its_source(tmp_path):
    assert "my_model/CMakeLists.txt" in unpacked("esp-idf", tmp_path)
    text = (tmp_path / "my_model" / "CMakeLists.txt").read_text()
    assert text == 'idf_component_register(SRCS "my_model.step.c" INCLUDE_DIRS ".")\n'


def test_a_module_of_zephyr_names_its_build(tmp_path):
    assert "my_model/zephyr/module.yml" in unpacked("zephyr", tmp_path)
    module = yaml.safe_load((tmp_path / "my_model" / "zephyr" / "module.yml").read_text())
    assert module == {"name": "my_model", "build": {"cmake": "."}}
    assert "zephyr_library_sources(my_model.step.c)" in (tmp_path / "my_model" / "CMakeLists.txt").read_text()
