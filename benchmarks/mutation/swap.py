"""Put a fault into a module that is loaded: functions get other code, and constants other values."""

from __future__ import annotations

import ast
import gc
import importlib
import sys
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

from benchmarks.mutation.operators import Fault, with_fault
from benchmarks.mutation.reach import ROOT


def put_in(fault: Fault) -> None:
    """Put a fault into this process.

    Raises:
        ValueError: it cannot be put in, because a function would then need other variables of those around it.
    """
    path = ROOT / fault.path
    source = path.read_text(encoding="utf-8")
    module = importlib.import_module(".".join(Path(fault.path).with_suffix("").parts).removesuffix(".__init__"))
    before, after = ast.parse(source), with_fault(source, fault.number)
    if not _swap_code(str(path), before, after) + _swap_values(module, before, after):
        raise ValueError(f"{fault}: nothing in the loaded module changed")


def _swap_code(path: str, before: ast.Module, after: ast.Module) -> int:
    old, new = (_codes(compile(tree, path, "exec")) for tree in (before, after))
    changed = {code: new[place] for place, code in old.items() if place in new and new[place] != code}
    functions = [item for item in gc.get_objects() if type(item) is FunctionType and item.__code__ in changed]
    for function in functions:
        function.__code__ = changed[function.__code__]
    return len(functions)


def _codes(code: CodeType) -> dict[tuple[str, int, int], CodeType]:
    """All functions in it, each by its name and where it begins; a fault may have taken one away."""
    found: dict[tuple[str, int, int], CodeType] = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            columns = [start for _, _, start, _ in constant.co_positions() if start is not None]
            found[constant.co_qualname, constant.co_firstlineno, min(columns, default=0)] = constant
            found |= _codes(constant)
    return found


def _swap_values(module: ModuleType, before: ast.Module, after: ast.Module) -> int:
    count = 0
    for old, new in zip(ast.walk(before), ast.walk(after), strict=False):
        if isinstance(old, (ast.FunctionDef, ast.AsyncFunctionDef)) and isinstance(new, type(old)):
            count += _swap_defaults(module, old, new)
    for old_statement, new_statement in zip(before.body, after.body, strict=True):
        if ast.dump(old_statement) != ast.dump(new_statement) and isinstance(
            new_statement, (ast.Assign, ast.AnnAssign)
        ):
            count += _swap_constant(module, new_statement)
    return count


def _swap_defaults(module: ModuleType, old: ast.FunctionDef, new: ast.FunctionDef) -> int:
    old_values = (*old.args.defaults, *old.args.kw_defaults)
    new_values = (*new.args.defaults, *new.args.kw_defaults)
    if [ast.dump(value) for value in old_values if value] == [ast.dump(value) for value in new_values if value]:
        return 0
    count = 0
    for function in [item for item in gc.get_objects() if type(item) is FunctionType]:
        code = function.__code__
        if code.co_name != old.name or code.co_firstlineno not in _heads(old) or function.__module__ != module.__name__:
            continue
        names = [argument.arg for argument in new.args.kwonlyargs]
        function.__defaults__ = tuple(_value(module, value) for value in new.args.defaults) or None
        pairs = zip(names, new.args.kw_defaults, strict=True)
        function.__kwdefaults__ = {name: _value(module, value) for name, value in pairs if value is not None} or None
        count += 1
    return count


def _heads(function: ast.FunctionDef) -> set[int]:
    return {function.lineno, *(decorator.lineno for decorator in function.decorator_list)}


def _value(module: ModuleType, expression: ast.expr) -> object:
    return eval(compile(ast.Expression(expression), module.__name__, "eval"), vars(module))


def _swap_constant(module: ModuleType, statement: ast.Assign | ast.AnnAssign) -> int:
    """Give a constant its other value in its module, and in those of ours that took it over by its name."""
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    if not isinstance(target, ast.Name) or statement.value is None:
        return 0
    old, value = vars(module)[target.id], _value(module, statement.value)
    for name, other in list(sys.modules.items()):
        if name.partition(".")[0] in {"compressor", "exporters"} and vars(other).get(target.id) is old:
            setattr(other, target.id, value)
    return 1
