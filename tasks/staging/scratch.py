"""Files of a staging live in a directory of their own process, and are removed after its death."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def scratch_directory(root: Path) -> Iterator[Path]:
    """A new directory below ``root``; removed at the end, and by ``remove_unused`` where this process is killed.

    The kernel frees a dead process's lock (``flock``): a lock to be had marks a directory nobody uses.
    """
    root.mkdir(parents=True, exist_ok=True)
    directory = root / uuid.uuid4().hex
    lock_path = directory.with_suffix(".lock")
    with FileLock(lock_path):
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            lock_path.unlink(missing_ok=True)


def remove_unused(root: Path) -> None:
    """Remove the directories below ``root`` of processes that were killed."""
    for lock_path in root.glob("*.lock"):
        _remove_abandoned(lock_path)


def _remove_abandoned(lock_path: Path) -> None:
    try:
        with FileLock(lock_path, timeout=0):
            shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
            lock_path.unlink(missing_ok=True)
    except Timeout:
        return
