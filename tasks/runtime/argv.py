"""Arguments on their way through launchers that read some of them as their own.

``mpirun`` splits its command line at every argument that is exactly ``:`` (several programs in one job), also behind
the program's name. Such an argument therefore travels with a backslash before it, and one that looks so gets another.
"""

import re

_COLON = re.compile(r"\\*:")


def shielded(argument: str) -> str:
    """An argument as launchers are given it."""
    return f"\\{argument}" if _COLON.fullmatch(argument) else argument


def unshielded(argument: str) -> str:
    """The argument as the script gets it."""
    return argument[1:] if argument.startswith("\\") and _COLON.fullmatch(argument) else argument
