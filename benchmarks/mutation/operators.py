"""The faults: each changes one operator, number, condition, argument or statement of a module's syntax tree.

Faults are put into functions, their defaults, and constants of a module. Strings are left alone (texts have their own
tests), and so are annotations, decorators, `raise` statements, imports and `__all__`: a fault there is seen by a type
checker, or changes words only. Fields of a class are left alone too: a running class cannot be given other ones.
"""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

Edit = Callable[[], None]
"""Puts the fault into the tree that it was made for."""

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.FloorDiv,),
    ast.Pow: (ast.Mult,),
    ast.MatMult: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_SIGNS: dict[type[ast.AST], str] = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="},
    **{ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in", ast.And: "and", ast.Or: "or"},
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"},
    **{ast.MatMult: "@", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>"},
}
_CALLS = {
    **{"min": "max", "max": "min", "any": "all", "all": "any", "amin": "amax", "amax": "amin"},
    **{"argmin": "argmax", "argmax": "argmin", "floor": "ceil", "ceil": "floor", "sum": "mean", "mean": "sum"},
    **{"zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "ones_like": "zeros_like", "round": "floor"},
    **{"cumsum": "cumprod", "minimum": "maximum", "maximum": "minimum", "sin": "cos", "cos": "sin"},
    **{"exp": "expm1", "log": "log1p", "append": "extend", "issubset": "issuperset", "var": "std", "std": "var"},
}


@dataclass(frozen=True)
class Fault:
    """One fault of a file: where it is, and what it changes."""

    path: str
    line: int
    column: int
    text: str
    number: int
    """Its place among the faults of the file."""
    first: int
    last: int
    """Lines of the statement around it: a test that runs one of them may notice."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column} {self.text}"


def faults(path: str, source: str) -> list[Fault]:
    """All faults that can be put into a file, in the order of its text."""
    places = _places(ast.parse(source))
    return [
        Fault(path, getattr(node, "lineno", first), getattr(node, "col_offset", 0), text, number, first, last)
        for number, (node, text, _, (first, last)) in enumerate(places)
    ]


def with_fault(source: str, number: int) -> ast.Module:
    """The tree of a file with the fault of that number."""
    tree = ast.parse(source)
    places = list(_places(tree))
    places[number][2]()
    return ast.fix_missing_locations(tree)


Place = tuple[ast.AST, str, Edit, tuple[int, int]]


def _places(tree: ast.Module) -> Iterator[Place]:
    yield from _of_block(tree.body, in_function=False)


def _of_block(body: list[ast.stmt], *, in_function: bool) -> Iterator[Place]:
    for index, statement in enumerate(body):
        if _left_alone(statement):
            continue
        defines = isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef))
        if in_function or defines or (isinstance(statement, (ast.Assign, ast.AnnAssign)) and _named(statement)):
            yield from _of_one(body, index, in_function=in_function)
        if in_function or defines or not isinstance(statement, ast.ClassDef):
            for block in _blocks(statement):
                yield from _of_block(block, in_function=in_function or defines)
        else:
            methods = [part for part in statement.body if isinstance(part, ast.FunctionDef)]
            yield from _of_block(methods, in_function=False)


def _of_one(body: list[ast.stmt], index: int, *, in_function: bool) -> Iterator[Place]:
    statement = body[index]
    lines = _own_lines(statement) if in_function else _whole(statement)
    if in_function:
        for text, replacement in _of_statement(statement):
            yield statement, text, _put(body, index, replacement), lines
    for node, text, edit in _of_expressions(statement):
        yield node, text, edit, lines


def _named(statement: ast.Assign | ast.AnnAssign) -> bool:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    return isinstance(target, ast.Name)


def _left_alone(statement: ast.stmt) -> bool:
    if isinstance(statement, (ast.Import, ast.ImportFrom, ast.Raise, ast.Assert, ast.Global, ast.Nonlocal)):
        return True
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.If):
        return ast.unparse(statement.test) == "TYPE_CHECKING"
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


def _own_lines(statement: ast.stmt) -> tuple[int, int]:
    """Of a statement without the blocks in it."""
    blocks = [block for block in _blocks(statement) if block]
    last = min(block[0].lineno for block in blocks) - 1 if blocks else statement.end_lineno or statement.lineno
    return statement.lineno, max(last, statement.lineno)


def _whole(statement: ast.stmt) -> tuple[int, int]:
    """Where the default of a function, or a constant of a module, is felt: in all of the function, or of the file."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return statement.body[0].lineno, statement.end_lineno or statement.lineno
    return 1, sys.maxsize


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        yield getattr(statement, field, [])
    for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        yield part.body


def _of_statement(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """A statement in place of another."""
    empty = ast.copy_location(ast.Pass(), statement)
    match statement:
        case ast.Expr(value=ast.Call()):
            yield f"delete `{_short(statement)}`", empty
        case ast.AugAssign():
            plain = ast.Assign(targets=[statement.target], value=statement.value)
            yield f"`{_short(statement)}` becomes `=`", ast.copy_location(plain, statement)
        case ast.Break():
            yield "break becomes continue", ast.copy_location(ast.Continue(), statement)
        case ast.Continue():
            yield "continue becomes break", ast.copy_location(ast.Break(), statement)


def _put(body: list[Any], index: int, replacement: ast.AST) -> Edit:
    return lambda: body.__setitem__(index, replacement)


def _of_expressions(statement: ast.stmt) -> Iterator[tuple[ast.AST, str, Edit]]:
    """Faults in what is computed if a statement is reached; of a function, in its defaults."""
    skipped = {"body", "orelse", "finalbody", "handlers", "cases", "annotation"}
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from _below(statement.args, {"posonlyargs", "args", "vararg", "kwonlyargs", "kwarg"})
    elif not isinstance(statement, ast.ClassDef):
        yield from _below(statement, skipped)


def _below(parent: ast.AST, skipped: Collection[str] = ()) -> Iterator[tuple[ast.AST, str, Edit]]:
    if isinstance(parent, (ast.JoinedStr, ast.FormattedValue)):
        return
    for name, value in ast.iter_fields(parent):
        if name in skipped:
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(node, ast.AST) and not _guards(parent, node):
                for text, new in _of_node(node):
                    edit = _put(value, index, new) if isinstance(value, list) else _set(parent, name, new)
                    yield _placed(node, parent), text, edit
                yield from _below(node)


def _guards(call: ast.AST, keyword: ast.AST) -> bool:
    """Whether it is `strict` of `zip`: it changes nothing as long as nothing is wrong elsewhere."""
    return (
        isinstance(keyword, ast.keyword)
        and keyword.arg == "strict"
        and isinstance(call, ast.Call)
        and ast.unparse(call.func) == "zip"
    )


def _placed(node: ast.AST, parent: ast.AST) -> ast.AST:
    """Operators have no position of their own."""
    return node if hasattr(node, "lineno") else parent


def _set(parent: ast.AST, name: str, new: ast.AST) -> Edit:
    return lambda: setattr(parent, name, new)


def _of_node(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may replace a node."""
    for other in _OPERATORS.get(type(node), ()):
        yield f"`{_SIGNS[type(node)]}` becomes `{_SIGNS[other]}`", other()
    match node:
        case ast.Constant(value=bool()):
            yield f"{node.value} becomes {not node.value}", _constant(node, not node.value)
        case ast.Constant(value=int()):
            yield f"{node.value} becomes {node.value + 1}", _constant(node, node.value + 1)
        case ast.Constant(value=float()):
            new = node.value * 2 or 1.0
            yield f"{node.value} becomes {new}", _constant(node, new)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield f"`{_short(node)}` without its sign", node.operand
        case ast.IfExp():
            swapped = ast.IfExp(test=node.test, body=node.orelse, orelse=node.body)
            yield f"the branches of `{_short(node)}` swapped", ast.copy_location(swapped, node)
        case ast.comprehension(ifs=[_, *_]):
            for index in range(len(node.ifs)):
                fewer = copy.copy(node)
                fewer.ifs = [*node.ifs[:index], *node.ifs[index + 1 :]]
                yield f"without `if {_short(node.ifs[index])}`", fewer
        case ast.Slice() if node.lower or node.upper:
            yield f"`[{_short(node)}]` becomes `[:]`", ast.copy_location(ast.Slice(), node)
        case ast.Attribute(attr="T" | "mT"):
            yield f"`{_short(node)}` not transposed", node.value
        case ast.Call():
            yield from _of_call(node)


def _constant(node: ast.AST, value: object) -> ast.AST:
    return ast.copy_location(ast.Constant(value), node)


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in _CALLS:
        yield f"`{name}` becomes `{_CALLS[name]}`", _renamed(node, _CALLS[name])
    if name == "abs" and len(node.args) + isinstance(node.func, ast.Attribute) == 1:
        inner = node.args[0] if node.args else node.func.value  # type: ignore[attr-defined]
        yield f"`{_short(node)}` without abs", inner
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None and not _guards(node, keyword):
            fewer = copy.copy(node)
            fewer.keywords = [*node.keywords[:index], *node.keywords[index + 1 :]]
            yield f"`{_short(node.func)}` without `{keyword.arg}`", fewer


def _renamed(node: ast.Call, name: str) -> ast.Call:
    new = copy.copy(node)
    if isinstance(node.func, ast.Attribute):
        new.func = ast.copy_location(ast.Attribute(node.func.value, name, node.func.ctx), node.func)
    else:
        new.func = ast.copy_location(ast.Name(name, ast.Load()), node.func)
    return new


def _short(node: ast.AST, limit: int = 50) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
