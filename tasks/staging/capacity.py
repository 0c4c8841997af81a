"""Room on this machine's disk: foreseen where it can be, survived where it cannot."""

import errno
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.errors import DiskFullError, PermanentError
from trainyard.tasks.staging.listing import Listing
from trainyard.tasks.staging.unfinished import UnfinishedObjects

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EIO, errno.EROFS, errno.EUCLEAN}  # filesystems make themselves read-only when their disk fails
_SQLITE_UNWRITABLE = ("disk I/O error", "readonly database", "unable to open database file")
_REMEDY = "free some, for example with 'trainyard gc --max-size 50GB', or set TRAINYARD_HOME to a larger disk"
_SPARE_BYTES = 16 << 20
"""Room for the index, directories and the store's manifests."""


def room_needed(listing: Listing, objects: Sequence[ObjectInfo], scratch: Path, unfinished: UnfinishedObjects) -> int:
    """Bytes that objects will take on this machine's disk: none where they share those of the user's own files.

    Args:
        listing: Where the objects are.
        objects: Those that are to be transferred; the first is tried.
        scratch: A directory on the disk that they go to.
        unfinished: What has room of its own already.
    """
    if not objects:
        return 0
    tried = scratch / f"shared-{uuid.uuid4().hex}"
    try:
        is_shared = listing.location_of(objects[0]).share_version(objects[0], tried) is not None
    finally:
        tried.unlink(missing_ok=True)
    if is_shared:
        return 0
    held = sum(unfinished.held_bytes(listing, info) for info in objects)
    return sum(info.num_bytes for info in objects) - held


def require_room(home: Path, listing: Listing, needed_bytes: int) -> None:
    """Prove that what is to be transferred fits on the disk, before the first byte is.

    Raises:
        DiskFullError: It does not.
    """
    free_bytes = shutil.disk_usage(home).free
    if needed_bytes and needed_bytes + _SPARE_BYTES > free_bytes:
        raise DiskFullError(
            f"{listing.reference.uri} does not fit on the disk of {home}: {needed_bytes / 1e9:,.3f} GB are to be "
            f"transferred, and {free_bytes / 1e9:,.3f} GB are free; {_REMEDY}.",
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


def require_room_for_all(home: Path, missing_bytes: int, copied_bytes: int) -> None:
    """Prove that several datasets fit on the disk together, before the first byte of any is transferred.

    Args:
        home: The directory that they go to.
        missing_bytes: What is to be transferred.
        copied_bytes: Size of the copies that a run gets for itself.

    Raises:
        DiskFullError: They do not.
    """
    free_bytes, needed_bytes = shutil.disk_usage(home).free, missing_bytes + copied_bytes
    if needed_bytes and needed_bytes + _SPARE_BYTES > free_bytes:
        copies = f" and {copied_bytes / 1e9:,.3f} GB copied for the run (as_download)" if copied_bytes else ""
        raise DiskFullError(
            f"The data does not fit on the disk of {home}: {missing_bytes / 1e9:,.3f} GB are to be transferred"
            f"{copies}, and {free_bytes / 1e9:,.3f} GB are free; {_REMEDY}.",
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )


@contextmanager
def disk_errors_translated(home: Path) -> Iterator[None]:
    """Turn the errors of a disk that fills up meanwhile, or fails, into ours.

    Raises:
        DiskFullError: There is no room left, or the user's quota is used up.
        PermanentError: The disk cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(home) from error
        if error.errno in _UNWRITABLE:
            raise _unwritable(home, error.strerror or str(error)) from error
        raise
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise _full(home) from error
        if any(reason in str(error) for reason in _SQLITE_UNWRITABLE):
            raise _unwritable(home, str(error)) from error
        raise


def _full(home: Path) -> DiskFullError:
    free_bytes = shutil.disk_usage(home).free
    return DiskFullError(
        f"The disk of {home} is full ({free_bytes / 1e6:,.1f} MB are left): {_REMEDY}. What was staged is kept.",
        free_bytes=free_bytes,
    )


def _unwritable(home: Path, reason: str) -> PermanentError:
    return PermanentError(
        f"The disk of {home} cannot be written to ({reason}): the kernel's log ('dmesg') may say more. Set "
        "TRAINYARD_HOME to another disk."
    )
