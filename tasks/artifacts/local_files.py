"""Files of this machine as objects: exact times and an end to cycles, which fsspec's local files lack."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from trainyard.tasks.errors import InvalidInputError


def file_version(status: os.stat_result) -> str:
    """What changes when a file changes: inode, modification time and change time, in nanoseconds."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"


def stat_file(path: Path) -> os.stat_result | None:
    """The status of a regular file, or None for a directory; links are followed.

    Raises:
        FileNotFoundError: There is nothing.
        InvalidInputError: It is a pipe, a socket or a device.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInputError(f"{path} is neither a file nor a directory, so it cannot be staged; remove it.")
    return status


def walk_files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every regular file below a directory, as its path relative to it (forward slashes) and its status.

    Links are followed, to directories too, as a training script would follow them.

    Raises:
        FileNotFoundError: A link leads nowhere.
        InvalidInputError: A link leads to a directory above it, or there is a pipe, socket or device.
    """
    yield from _walk(root, "", (_identity(root.stat()),))


def _walk(directory: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, os.stat_result]]:
    for name in sorted(os.listdir(directory)):
        path, key = directory / name, f"{prefix}{name}"
        status = stat_file(path)
        if status is not None:
            yield key, status
            continue
        identity = _identity(path.stat())
        if identity in above:
            raise InvalidInputError(f"{path} is a link to a directory above it: a tree without end; remove it.")
        yield from _walk(path, f"{key}/", (*above, identity))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
