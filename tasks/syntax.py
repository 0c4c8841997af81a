"""Python source as a syntax tree."""

import ast

_ATTEMPTS = 5


def parse_source(source: bytes, filename: str = "<unknown>") -> ast.Module:
    """``ast.parse``, also while other threads parse.

    CPython 3.11 counts the depth of the trees that it builds in one place for all threads, and sometimes raises
    SystemError where two build one at the same moment (https://github.com/python/cpython/issues/106905). The next
    attempt succeeds.

    Raises:
        SyntaxError: It is no source of this Python.
        ValueError: It has null bytes.
    """
    for _ in range(_ATTEMPTS - 1):
        try:
            return ast.parse(source, filename)
        except SystemError:
            continue
    return ast.parse(source, filename)
