"""Bring what was written to the disk: many small files at once, a large one while it arrives."""

import ctypes
import errno
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

_FILESYSTEMS = {"ext3", "ext4", "xfs"}
"""Those of a disk of this machine, whose ``syncfs`` waits for the disk and tells what it fails at."""
_TELLS_ERRORS = (5, 17)
"""The first Linux whose ``syncfs`` also tells what the filesystem itself fails at (of files it does from 5.8 on)."""
_BLOCK_BYTES = 512
"""What ``st_blocks`` counts in (stat(3type))."""

_SYNC_BYTES = 32 * 2**20
"""How much of a file is brought to the disk at once while the rest arrives."""

Sync = Callable[[Iterable[str]], None]


@contextmanager
def syncing_together(directory: Path) -> Iterator[Sync | None]:
    """Bring many files of a directory's filesystem to the disk at once, whenever asked to within this block.

    That waits for whatever others have written there, too.

    Yields:
        To be called with the paths of files that were written since the block began, before they are relied upon.
        It raises ``OSError`` where anything that was written to the filesystem since then could not be brought to the
        disk. None where the filesystem is not known to tell that: then each file is to be synced.
    """
    if not _can_sync(directory):
        yield None
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _syncfs(descriptor)  # an error of before is told here, not by the calls below

        def sync(paths: Iterable[str]) -> None:
            number = _syncfs(descriptor)
            if number:
                raise OSError(number, os.strerror(number), str(directory))
            for path in paths:
                _require_blocks(path)

        yield sync
    finally:
        os.close(descriptor)


@contextmanager
def syncing_early(
    out: FileIO, total_bytes: int, checkpoint: Callable[[], Callable[[], None]] | None = None
) -> Iterator[Callable[[int], None]]:
    """Bring a large file to the disk while it arrives, so that the last fsync has little left to do.

    Args:
        out: The file.
        total_bytes: Its size when all of it is there.
        checkpoint: Called when a sync begins; gives what to call when it has ended.

    Yields:
        To be called with the bytes that were written so far. What it, or the end of the block, raises is the disk's
        error: the kernel tells it once, so that no later fsync would.
    """
    if total_bytes < _SYNC_BYTES:
        yield lambda num_bytes: None
        return
    begun: Future[None] | None = None
    synced = out.tell()

    def bring(then: Callable[[], None] | None) -> None:
        os.fdatasync(out.fileno())
        if then:
            then()

    def sync(num_bytes: int) -> None:
        nonlocal begun, synced
        if num_bytes - synced < _SYNC_BYTES or (begun and not begun.done()):
            return
        if begun:
            begun.result()
        begun, synced = executor.submit(bring, checkpoint() if checkpoint else None), num_bytes

    with ThreadPoolExecutor(1, thread_name_prefix="sync") as executor:
        yield sync
    if begun:
        begun.result()


def _require_blocks(path: str) -> None:
    """ext4 does not tell when it finds no blocks for what it has promised to write: the file has a hole then."""
    status = os.lstat(path)
    if status.st_blocks * _BLOCK_BYTES < status.st_size:
        raise OSError(errno.EIO, "Not all of it is on the disk", path)


def _syncfs(descriptor: int) -> int:
    """Sync the filesystem of an open directory; the number of the error, 0 where there is none."""
    return ctypes.get_errno() if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) else 0


def _can_sync(directory: Path) -> bool:
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    return (
        platform.system() == "Linux"
        and version is not None
        and (int(version[1]), int(version[2])) >= _TELLS_ERRORS
        and _filesystem(directory) in _FILESYSTEMS
    )


def _filesystem(directory: Path) -> str:
    """The type of a directory's filesystem; empty where the kernel does not say."""
    device = directory.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in mounts:
        mount, _, source = line.partition(" - ")
        if mount.split()[2] == wanted:
            return source.split()[0]
    return ""
