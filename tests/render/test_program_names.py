"""Names from a model are never code in the programs of `use/`: each is one literal that gives the name back."""

import ast
import json
import re
import shutil
import subprocess

import pytest

from compressor.render.programs import LANGUAGES, File, programs
from compressor.render.programs.literals import comment, literal
from compressor.report import StateInfo, StreamInfo, StreamInput, StreamOutput, TensorInfo

HOSTILE = [
    'a"; import os; os.system("touch pwned") #',
    "');evil();//",
    "</script><script>evil()</script>",
    "a\nimport os",
    "\\",
    'a\\"',
    "${evil()} $x",
    "\\(evil())",
    "*/ evil(); /*",
    '"""\nevil()\n"""',
    "a\u2028evil()",
    "\u202e)(live",
    "\x00\x01\b\f\x1b]52;c;eA==\x07\x7f",
    "{{ 7 * 7 }}{% raw %}",
    "\U000e0041\U0001f600é",
]


def file(name):
    """A step file of which everything that a model names has this name."""
    state = StateInfo(name=f"{name}s", next_name=f"{name}n", dtype="float32", shape=(1, 2))
    stream = StreamInfo(
        chunk=1,
        inputs=(StreamInput(name=name, batch_axis=0, time_axis=1),),
        outputs=(StreamOutput(name=f"{name}y", batch_axis=0, time_axis=1),),
        states=(state,),
    )
    given = TensorInfo(name=name, dtype="float32", shape=(name, 3))
    carried = TensorInfo(name=f"{name}s", dtype="float32", shape=(1, 2))
    outputs = [TensorInfo(name=f"{name}{end}", dtype="float32", shape=(name,)) for end in "yn"]
    return File(f"{name}.onnx", [given, carried], outputs, stream)


_TOKENS = {
    "py": r'"""(?s:.*?)"""|#[^\n]*|"(?:[^"\\\n]|\\.)*"',
    "other": r'/\*(?s:.*?)\*/|//[^\n]*|`(?:[^`\\]|\\.)*`|"(?:[^"\\\n]|\\.)*"',
}


def without_names(text, language):
    """The code alone: literals and comments are cut out as that language finds them, from left to right."""
    return re.sub(_TOKENS["py" if language == "py" else "other"], "_", text)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_changes_no_code_in_any_language(name, language):
    texts = [programs(file(one))[f"{file(one).stem}.{language}"] for one in (name, "plain")]
    first, second = (without_names(text, language) for text in texts)
    assert first == second


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is_read(name):
    for language in LANGUAGES:
        assert literal(name, language)[1:-1].isprintable()
        text = programs(file(name))[f"{name}.{language}"]
        assert all(line.isprintable() for line in text.splitlines())
    assert comment(name).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_python_gives_the_name_back(name):
    assert ast.literal_eval(literal(name, "py")) == name


def test_javascript_gives_the_names_back(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("no node")
    program = tmp_path / "names.mjs"
    names = ", ".join(literal(name, "mjs") for name in HOSTILE)
    program.write_text(f"console.log(JSON.stringify([{names}]));", encoding="utf-8")
    assert json.loads(subprocess.check_output(["node", str(program)])) == HOSTILE


def test_cpp_gives_the_names_back(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler")
    names = ", ".join(f"std::string({literal(name, 'cpp')}, {len(name.encode())})" for name in HOSTILE)
    lines = ("#include <cstdio>", "#include <string>", "int main() {", f"for (const std::string& name : {{{names}}})")
    program = tmp_path / "names.cpp"
    program.write_text("\n".join([*lines, "fwrite(name.data(), 1, name.size(), stdout); }"]), encoding="utf-8")
    subprocess.run(["g++", "-std=c++17", str(program), "-o", str(tmp_path / "names")], check=True)
    assert subprocess.check_output([str(tmp_path / "names")]) == "".join(HOSTILE).encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_kotlin_and_swift_get_only_escapes_that_they_have(name):
    escapes = {"kt": r'\\(?:[tbnr"\\$]|u[0-9a-f]{4})', "swift": r'\\(?:[0tnr"\\]|u\{[0-9a-f]{1,8}\})'}
    for language, known in escapes.items():
        assert "\\" not in re.sub(known, "", literal(name, language)[1:-1])
    assert not re.search(r"(?<!\\)\$", re.sub(r"\\\\", "", literal(name, "kt")))
