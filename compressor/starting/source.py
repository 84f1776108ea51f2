"""Where a model comes from: a Python file, an installed package, or a Hugging Face folder."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import CompressorError, Place, TaskError, UsageError, first_line
from compressor.files import json_object, read_text
from compressor.task.places import place_in
from compressor.task.unlabelled import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

CONFIG_FILE = "config.json"
"""In every folder of Hugging Face."""
_HOW = "give FILE.py, FILE.py:NAME, package.module:NAME, `FILE.py:NAME(arguments)`, or a Hugging Face folder"


@dataclass(frozen=True)
class Source:
    """How code builds the model."""

    name: str
    """What the model is called."""
    lines: tuple[str, ...]
    """Import statements."""
    expression: str
    """Builds the model."""
    names: Mapping[str, Any]
    """What the expression refers to."""
    folder: Path | None = None
    """Must be on the import path."""
    seeded: bool = False
    """Whether it gives random weights, other ones in each call."""

    def build(self) -> nn.Module:
        """The model in evaluation mode; raises `TaskError`."""
        with seeded(0) if self.seeded else nullcontext():
            model = _evaluated(self.expression, self.names)
        if not isinstance(model, nn.Module):
            raise TaskError(
                f"`{self.expression}` gives a {type(model).__name__}, not a torch.nn.Module",
                hint="name the class or function that gives the module itself; an attribute works too: `Wrapper().net`",
            )
        return model.eval()


def find(spec: str, *, has_weights: bool = False) -> Source:
    """The source of a model.

    Args:
        spec: What the user gave, see `_HOW`.
        has_weights: Whether a checkpoint is loaded into it, so that its own weights do not count.

    Raises:
        CompressorError: There is no such file, module or name, or it builds no module.
    """
    if Path(spec).is_dir():
        return _of_folder(Path(spec))
    module, name, folder, place = _module_of(spec)
    source = _of_module(module, name, place)
    source = replace(source, folder=folder)
    return source if has_weights else replace(source, seeded=_is_random(source))


def _is_random(source: Source) -> bool:
    """Whether two random states give two models; such a model has not been trained."""
    states = []
    for seed in (0, 1):
        with seeded(seed):
            states.append(source.build().state_dict())
    first, second = states
    return any(not torch.equal(value, second[name]) for name, value in first.items())


# --- files and packages -----------------------------------------------------------------------------------------------


def _module_of(spec: str) -> tuple[ModuleType, str, Path | None, Place]:
    """The imported module, the expression behind the colon, the folder that it is imported from, and its place."""
    file, colon, name = spec.partition(".py:") if ".py:" in spec else (spec, "", "")
    if colon or spec.endswith(".py"):
        path = Path(f"{file}.py" if colon else spec)
        if not path.is_file():
            raise UsageError(f"no file at {path}", hint=_HOW)
        folder, parts = path.resolve().parent, [path.stem]
        while (folder / "__init__.py").is_file():
            folder, parts = folder.parent, [folder.name, *parts]
        place = Place(str(path))
        return _imported(".".join(parts), folder, place), name, folder, place
    word, _, name = spec.partition(":")
    if not name:
        raise UsageError(f"`{spec}` is neither a Python file nor a Hugging Face folder", hint=_HOW)
    return _imported(word, None, Place(spec)), name, None, Place(spec)


def _imported(name: str, folder: Path | None, place: Place) -> ModuleType:
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    except CompressorError:
        raise
    except (Exception, SystemExit) as error:
        where = place if folder is None else place_in(place.file, error.__traceback__)
        raise TaskError(f"`import {name}` raised {first_line(error)}", hint=_remedy(error), place=where) from error


def _remedy(error: BaseException) -> str:
    """What to do about an import that failed."""
    missing = error.name.partition(".")[0] if isinstance(error, ImportError) and error.name else ""
    if missing and importlib.util.find_spec(missing) is None:
        return f"install `{missing}` into the environment in which `compressor` runs: {sys.prefix}"
    return "fix it first"


def _of_module(module: ModuleType, name: str, place: Place) -> Source:
    expression = name or _only_model(module, place)
    try:
        root = ast.parse(expression, mode="eval").body
    except SyntaxError as error:
        raise UsageError(f"`{expression}` is not Python: {error.msg}", hint=_HOW) from error
    while not isinstance(root, ast.Name):
        if not isinstance(root, (ast.Call, ast.Attribute)):
            raise UsageError(f"`{expression}` is neither a name nor a call", hint=_HOW)
        root = root.func if isinstance(root, ast.Call) else root.value
    names = vars(module)
    if root.id not in names:
        near = difflib.get_close_matches(root.id, names, 1)
        raise UsageError(f"{place.file} has no `{root.id}`", hint=f"did you mean `{near[0]}`?" if near else _HOW)
    value = _evaluated(expression, names)
    if callable(value) and not isinstance(value, nn.Module):
        _refuse_missing_arguments(expression, value, place)
        expression += "()"
    called = value if isinstance(value, type) else names[root.id] if isinstance(names[root.id], type) else None
    title = called.__name__ if called is not None else root.id
    return Source(title, (f"from {module.__name__} import {', '.join(_used(expression, names))}",), expression, names)


def _used(expression: str, names: Mapping[str, Any]) -> list[str]:
    """The names of the module that an expression uses, that of the model first."""
    nodes = ast.walk(ast.parse(expression, mode="eval"))
    return list(dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name) and node.id in names))


def _refuse_missing_arguments(expression: str, function: Any, place: Place) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return
    missing = _missing(parameters)
    if missing:
        raise UsageError(
            f"`{expression}` needs {', '.join(f'`{name}`' for name in missing)}",
            hint=f"give the values that the model was trained with: "
            f'compressor init "{place.file}:{expression}({", ".join(f"{name}=..." for name in missing)})"',
        )


def _missing(parameters: Any) -> list[str]:
    open_kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in open_kinds]


def _only_model(module: ModuleType, place: Place) -> str:
    """The one model of a file: a module that it holds, or a class that is no part of another one."""
    built = [name for name, value in vars(module).items() if isinstance(value, nn.Module)]
    if len(built) == 1:
        return built[0]
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == module.__name__
    }
    if not classes:
        raise UsageError(f"{place.file} defines no torch.nn.Module", hint="name what gives the model: FILE.py:NAME")
    plain = [name for name, value in classes.items() if not _missing(inspect.signature(value).parameters.values())]
    parts = {type(part) for name in plain for part in list(_evaluated(f"{name}()", classes).modules())[1:]}
    whole = [name for name in plain if classes[name] not in parts]
    if (len(whole) == 1 and len(plain) == len(classes)) or len(classes) == 1:
        return whole[0] if whole else next(iter(classes))
    listed = ", ".join(f"`{place.file}:{name}`" for name in (whole or classes))
    raise UsageError(f"{place.file} defines several models", hint=f"name the one that was trained: {listed}")


def _evaluated(expression: str, names: Mapping[str, Any]) -> Any:
    try:
        return eval(compile(expression, "<model>", "eval"), dict(names))
    except (Exception, SystemExit) as error:
        raise TaskError(f"`{expression}` raised {first_line(error)}", hint="give the arguments it needs") from error


# --- folders of Hugging Face ------------------------------------------------------------------------------------------


def _of_folder(folder: Path) -> Source:
    path = folder / CONFIG_FILE
    config = json_object(read_text(path, UsageError, hint=_HOW))
    if config is None:
        raise UsageError(f"{folder} is not a Hugging Face folder: {path.name} cannot be read", hint=_HOW)
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"{folder} needs the package transformers", hint="pip install transformers") from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    architectures = config.get("architectures") or ["AutoModel"]
    name = str(architectures[0])
    if not hasattr(transformers, name):
        raise UsageError(
            f"transformers {transformers.__version__} has no class `{name}`, which {path} names",
            hint="write a Python file that builds the model, and give that",
        )
    # A cache of keys and values among the outputs belongs to generation: no file holds one.
    options = ", use_cache=False" if config.get("use_cache", _has_cache(folder)) else ""
    return Source(
        name,
        ("from pathlib import Path", f"from transformers import {name}"),
        f"{name}.from_pretrained(FOLDER{options}).float()",
        {name: getattr(transformers, name), "FOLDER": folder},
        folder=folder,
    )


def _has_cache(folder: Path) -> bool:
    from transformers import AutoConfig

    return bool(getattr(AutoConfig.from_pretrained(folder), "use_cache", False))
