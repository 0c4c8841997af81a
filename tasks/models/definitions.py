"""The classes that a script defines, without running the script.

A module pickled by the script that defines its class refers to ``__main__.Net``. Running the script again would
train again; what is wanted of it are its imports, functions, classes and plain constants, and nothing else is run.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from trainyard.tasks.errors import ExportError
from trainyard.tasks.syntax import parse_source

_RUNS_CODE = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_main = ModuleType("__main__")
_HARMLESS_CALLS = {"namedtuple", "NamedTuple", "TypeVar", "device", "Path", "getLogger"}


def find_in_main(source: Path, name: str) -> Any:
    """A class or function that some script of the source directory defined when it ran as ``__main__``.

    Args:
        source: The source directory.
        name: The class's or function's name.

    Raises:
        ExportError: No script, or several, define it; or its definitions cannot be run.
    """
    if not hasattr(_main, name):
        script = _script_that_defines(source, name)
        sys.modules["__main__"] = _main  # where the classes say that they are
        _run_definitions(script, _main)
    return getattr(_main, name)


def _script_that_defines(source: Path, name: str) -> Path:
    scripts = [path for path in sorted(source.rglob("*.py")) if name in _defined_names(path)]
    if len(scripts) == 1:
        return scripts[0]
    found = ", ".join(path.relative_to(source).as_posix() for path in scripts) or "no script"
    raise ExportError(
        f"The pickled module is of the class {name!r}, defined in the script that ran; {found} of the source directory "
        f"{'define' if len(scripts) > 1 else 'defines'} it; expected exactly one. Save the state dict and name a "
        "factory, OnnxExport(module='package.module:factory'), or save a torch.export program."
    )


def _defined_names(path: Path) -> set[str]:
    return {node.name for node in _parse(path).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}


def _parse(path: Path) -> ast.Module:
    try:
        return parse_source(path.read_bytes(), str(path))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])  # of another Python, or a template: not the script that ran


def _run_definitions(script: Path, main: ModuleType) -> None:
    """Run a script's definitions in the name space of a module, in their order.

    A constant whose value needs one that was left out is left out too: a class that reads it says so when it runs.
    """
    vars(main)["__file__"] = str(script)
    for node in _definitions(_parse(script).body):
        code = compile(ast.Module(body=[node], type_ignores=[]), str(script), "exec")
        try:
            exec(code, vars(main))
        except NameError:
            if not isinstance(node, (ast.Assign, ast.AnnAssign)):
                raise


def _definitions(body: list[ast.stmt]) -> list[ast.stmt]:
    return [node for node in body if _is_definition(node)]


def _is_definition(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Pass():
            return True
        case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
            return not _runs_code(value)
        case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
            inside = [*body, *orelse, *final, *(statement for handler in handlers for statement in handler.body)]
            return all(_is_definition(statement) for statement in inside)
        case ast.If(test=test, body=body, orelse=orelse):
            return not _runs_code(test) and all(_is_definition(statement) for statement in [*body, *orelse])
    return False


def _runs_code(expression: ast.expr) -> bool:
    return any(isinstance(node, _RUNS_CODE) and not _is_harmless(node) for node in ast.walk(expression))


def _is_harmless(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in _HARMLESS_CALLS
    return False
