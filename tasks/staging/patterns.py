"""Patterns in references: which keys ``train/**/*.png`` stands for."""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

_SPECIAL = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"


def is_pattern(key: str) -> bool:
    """Whether a key holds a special character of patterns: ``*``, ``?`` or ``[``."""
    return bool(_SPECIAL.search(key))


def split_pattern(key: str) -> tuple[str, Callable[[str], bool]]:
    """The folder that a pattern is in, and what tells whether a key below that folder matches.

    Between slashes the rules are those of ``fnmatch``; ``**`` between slashes stands for any folders, or none, and at
    the end for everything.

    Args:
        key: The pattern, relative to the datastore.

    Returns:
        The folder without a slash at its end, empty for the datastore itself; and the test.
    """
    parts = key.strip("/").split("/")
    folder = list(takewhile(lambda part: not is_pattern(part), parts))
    rest = parts[len(folder) :]
    return "/".join(folder), lambda candidate: _matches(rest, candidate.split("/"))


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the parts of a pattern stand for the names of a key: all ways to read ``**`` followed at once."""
    reached = _passed_over(parts, {0})
    for name in names:
        stays = {n for n in reached if n < len(parts) and parts[n] == _ANY_FOLDERS}
        steps = {n + 1 for n in reached - stays if n < len(parts) and fnmatchcase(name, parts[n])}
        reached = _passed_over(parts, stays | steps)
    return len(parts) in reached


def _passed_over(parts: Sequence[str], reached: Iterable[int]) -> set[int]:
    """Where one stands, and where ``**`` for no folder at all leads from there."""
    found = set(reached)
    for n, part in enumerate(parts):
        if n in found and part == _ANY_FOLDERS:
            found.add(n + 1)
    return found
