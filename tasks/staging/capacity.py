"""Room on this machine's disk: foreseen where it can be, survived where it cannot."""

import errno
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.errors import DiskFullError, PermanentError
from trainyard.tasks.staging.listing import Listing
from trainyard.tasks.staging.room import Disk, Room
from trainyard.tasks.staging.unfinished import UnfinishedObjects

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EIO, errno.EROFS, errno.EUCLEAN}  # filesystems make themselves read-only when their disk fails
_SQLITE_UNWRITABLE = ("disk I/O error", "readonly database", "unable to open database file")
_REMEDY = "free some, for example with 'trainyard gc --max-size 50GB', or set TRAINYARD_HOME to a larger disk"


def room_needed(listing: Listing, objects: Sequence[ObjectInfo], scratch: Path, unfinished: UnfinishedObjects) -> Room:
    """What objects will take on this machine's disk: nothing where they share the bytes of the user's own files.

    Args:
        listing: Where the objects are.
        objects: Those that are to be transferred; the first is tried.
        scratch: A directory on the disk that they go to.
        unfinished: What has room of its own already.
    """
    if not objects:
        return Room()
    tried = scratch / f"shared-{uuid.uuid4().hex}"
    try:
        sharing = listing.location_of(objects[0]).share_version(objects[0], tried)
    finally:
        tried.unlink(missing_ok=True)
    if sharing:
        return Room()
    room = Room.of(objects, Disk.of(scratch))
    held_bytes = sum(unfinished.held_bytes(listing, info) for info in objects)
    return replace(room, disk_bytes=room.disk_bytes - held_bytes)


def require_room(home: Path, listing: Listing, needed: Room) -> None:
    """Prove that what is to be transferred fits on the disk, before the first byte is.

    Raises:
        DiskFullError: It does not.
    """
    _require(home, f"{listing.reference.uri} does not fit", needed, Room())


def require_room_for_all(home: Path, missing: Room, copied: Room) -> None:
    """Prove that several datasets fit on the disk together, before the first byte of any is transferred.

    Args:
        home: The directory that they go to.
        missing: What is to be transferred.
        copied: The copies that a run gets for itself.

    Raises:
        DiskFullError: They do not.
    """
    _require(home, "The data does not fit", missing, copied)


def _require(home: Path, problem: str, missing: Room, copied: Room) -> None:
    disk, needed = Disk.of(home), missing + copied
    if not needed.fits(disk):
        copies = f" and {copied} copied for the run (as_download)" if copied.num_bytes else ""
        raise DiskFullError(
            f"{problem} on the disk of {home}: {missing} are to be transferred{copies}, and "
            f"{disk.free_bytes / 1e9:,.3f} GB are free; {_REMEDY}.",
            needed_bytes=needed.disk_bytes,
            free_bytes=disk.free_bytes,
        )
    if needed.missing_inodes(disk):
        raise DiskFullError(
            f"{problem} on the disk of {home}: {needed.num_files:,} files are to be made, and it has "
            f"{disk.free_inodes:,} inodes left, one for each file or folder; {_REMEDY}.",
            needed_bytes=needed.disk_bytes,
            free_bytes=disk.free_bytes,
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
    disk = Disk.of(home)
    left = f"{disk.free_bytes / 1e6:,.1f} MB are left"
    # Other processes may have made room for a file since.
    full = f"has no inodes left, one for each file or folder ({left})" if disk.free_inodes == 0 else f"is full ({left})"
    return DiskFullError(f"The disk of {home} {full}: {_REMEDY}. What was staged is kept.", free_bytes=disk.free_bytes)


def _unwritable(home: Path, reason: str) -> PermanentError:
    return PermanentError(
        f"The disk of {home} cannot be written to ({reason}): the kernel's log ('dmesg') may say more. Set "
        "TRAINYARD_HOME to another disk."
    )
