"""Object keys are untrusted: each becomes a relative path inside the dataset's directory, or is refused."""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from trainyard.tasks.errors import UnsafeObjectKeyError

_MAX_NAME_BYTES = 255  # NAME_MAX of Linux's filesystems
_MAX_KEY_BYTES = 1024  # the longest key of S3


def relative_path(key: str) -> PurePosixPath:
    """The path, inside the dataset's directory, that an object is kept at: its key, if that is safe.

    Raises:
        UnsafeObjectKeyError: Names the key, and why it is refused.
    """
    return PurePosixPath(safe_name(key))


def safe_name(key: str) -> str:
    """The key itself, if it is safe as a path inside the dataset's directory; raises as ``relative_path`` does."""
    problem = _problem(key)
    if problem:
        raise UnsafeObjectKeyError(
            f"Object key {key!r} {problem}, so it cannot be staged as a file; rename the object, or stage "
            "a prefix that leaves it out."
        )
    return key


def check_keys(keys: Iterable[str]) -> None:
    """Prove that all keys can be files of one directory.

    Raises:
        UnsafeObjectKeyError: Names the key that cannot, or the two keys that exclude each other.
    """
    names = {safe_name(key) for key in keys}
    folders = {folder for name in names if (folder := name.rpartition("/")[0])}
    for parent in sorted(names.intersection(_with_parents(folders))):
        below = min(name for name in names if name.startswith(f"{parent}/"))
        raise UnsafeObjectKeyError(
            f"Object {parent!r} would have to be a file and a directory at once, because of "
            f"object {below!r}; rename one of them, or stage a prefix that leaves one out."
        )


def check_folded(keys: Iterable[str], folds: Callable[[str, str], bool]) -> None:
    """Prove that no two keys are one file name to the filesystem that they are to be kept on.

    Args:
        keys: Safe keys.
        folds: Whether the filesystem takes two names that differ in case or Unicode form alone for one.

    Raises:
        UnsafeObjectKeyError: Names the two keys.
    """
    seen: dict[str, str] = {}
    for name in sorted(_with_parents(keys)):
        other = seen.setdefault(_folded(name), name)
        if other != name and folds(other, name):
            raise UnsafeObjectKeyError(
                f"Objects {other!r} and {name!r} differ in upper and lower case or Unicode form alone, and are "
                "one file on this machine's disk; rename one of them, or set TRAINYARD_HOME to a disk that tells "
                "them apart."
            )


def _with_parents(names: Iterable[str]) -> set[str]:
    """Names, and every folder above one."""
    found: set[str] = set()
    for name in names:
        while name and name not in found:
            found.add(name)
            name = name.rpartition("/")[0]
    return found


def _folded(name: str) -> str:
    if name.isascii():
        return name.lower()  # the same, at once
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(key: str) -> str | None:
    if not key:
        return "is empty"
    if "\0" in key:
        return "holds a NUL character"
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if len(encoded) > _MAX_KEY_BYTES:
        return f"is longer than {_MAX_KEY_BYTES} bytes"
    for name in encoded.split(b"/"):
        problem = _name_problem(name)
        if problem:
            return problem
    return None


def _name_problem(name: bytes) -> str | None:
    if not name:
        return "is absolute, ends in a slash, or has an empty part between two slashes"
    if name in (b".", b".."):
        return f"has the part {name.decode()!r}, which could lead outside the directory"
    if len(name) > _MAX_NAME_BYTES:
        return f"has a part longer than {_MAX_NAME_BYTES} bytes, the most a file name can have"
    return None
