"""What the shell completes: names of recipes and methods, and the files beside them."""

from __future__ import annotations


def recipe_names(incomplete: str) -> list[str]:
    """Shipped recipes, then YAML files and folders."""
    from compressor.recipe.source import names

    return [name for name in names() if name.startswith(incomplete)] + files(incomplete, (".yaml", ".yml"))


def shipped_names(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from compressor.recipe.source import names

    return [name for name in names() if name.startswith(incomplete)]


def method_names(incomplete: str) -> list[str]:
    """Recipe words of methods."""
    from compressor.methods import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def devices(incomplete: str) -> list[str]:
    """Words of `--device`; an accelerator that PyTorch does not bring itself is not among them."""
    return [name for name in ("auto", "cpu", "cuda", "mps", "xpu") if name.startswith(incomplete)]


def python_files(incomplete: str) -> list[str]:
    """Python files and folders."""
    return files(incomplete, (".py",))


def onnx_files(incomplete: str) -> list[str]:
    """ONNX files and folders."""
    return files(incomplete, (".onnx",))


def files(incomplete: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files with these suffixes and folders whose path begins with `incomplete`; hidden ones if it names them."""
    from pathlib import Path

    head, slash, start = incomplete.rpartition("/")
    folder = Path(head + slash).expanduser()
    if not folder.is_dir():
        return []
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name.startswith(start or "")]
    shown = [entry for entry in entries if start.startswith(".") or not entry.name.startswith(".")]
    return [
        f"{head}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in shown
        if entry.is_dir() or entry.suffix in suffixes
    ]
