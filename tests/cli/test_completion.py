"""What the shell completes."""

import pytest

from tests.cli.conftest import call


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("compressor run quick", ["quickstart"]),
        ("compressor validate weights", ["weights-2-4", "weights-90"]),
        ("compressor recipes show units", ["units-half"]),
        ("compressor methods show r", ["random_graph", "retrain"]),
        ("compressor doc", ["doctor"]),
    ],
)
def test_the_shell_completes_names(monkeypatch, tmp_path, words, completed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_COMPRESSOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert call().out.split() == completed


def test_the_shell_completes_recipe_files_and_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("four.yaml", "five.txt", ".hidden.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setenv("_COMPRESSOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "compressor run fo")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert call().out.split() == ["folder/", "four.yaml"]
