"""Many small files are brought to the disk at once, where the kernel tells what went wrong with any of them."""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FILESYSTEMS = {"ext2", "ext3", "ext4", "xfs"}
"""Those of a disk of this machine, whose ``syncfs`` waits for the disk and tells its errors."""
_TELLS_ERRORS = (5, 8)
"""The first Linux that does so (syncfs(2))."""


@contextmanager
def syncing_together(directory: Path | None) -> Iterator[Callable[[], None] | None]:
    """Bring what was written to a directory's filesystem to the disk, whenever asked to within this block.

    A sync of the filesystem waits for whatever others have written there, too.

    Yields:
        To be called when files are written and before they are relied upon. It raises ``OSError`` where anything
        that was written to the filesystem since the block began could not be brought to the disk. None where there
        is no directory, or its filesystem is not known to tell that: then each file is to be synced.
    """
    if directory is None or not _can_sync(directory):
        yield None
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)  # errors count from here on

    def sync() -> None:
        number = _syncfs(descriptor)
        if number:
            raise OSError(number, os.strerror(number), str(directory))

    try:
        yield sync
    finally:
        os.close(descriptor)


def _syncfs(descriptor: int) -> int:
    """Sync the filesystem of an open directory; the number of the error, 0 where there is none."""
    return ctypes.get_errno() if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) else 0


def _can_sync(directory: Path) -> bool:
    return (
        platform.system() == "Linux"
        and tuple(int(part) for part in platform.release().split(".")[:2]) >= _TELLS_ERRORS
        and _filesystem(directory) in _FILESYSTEMS
    )


def _filesystem(directory: Path) -> str:
    """The type of a directory's filesystem; empty where the kernel does not say."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0]
    return ""
