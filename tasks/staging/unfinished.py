"""Large objects whose transfer was interrupted, kept so that the next staging goes on where the last one was.

Below ``<home>/objects/unfinished``::

    <address>-<version>         what has come of one version of one object; whoever writes it holds its lock
    <address>-<version>.json    how much of that is on the disk, and the digest of so much

Only what is noted counts: it was brought to the disk before. And only what still has the noted digest: bytes that
were damaged meanwhile are fetched again.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from trainyard.tasks.artifacts.digests import CHUNK_BYTES, digest_value
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.artifacts.read_ahead import Block
from trainyard.tasks.staging.listing import Listing

KEPT_BYTES = 64 << 20
"""What an object must be larger than to be kept: less is fetched again in no time."""

UNUSED_S = 24 * 3600.0
"""How long an unfinished object is kept that nobody goes on with."""

_NAME_DIGITS = 32


class ArrivingFile:
    """A file that the bytes of one object are written to, in their order, and their digest.

    Args:
        out: The file, which the next byte is written to.
        note: Where is noted how much of it is on the disk; None for a file that goes with its process.
    """

    def __init__(self, out: FileIO, note: Path | None = None) -> None:
        self.out, self._note = out, note
        self.num_bytes = 0
        self._hasher = hashlib.sha256()

    def write(self, block: Block) -> None:
        """Write and hash the next bytes."""
        self.count(block)
        write_all(self.out.fileno(), block)

    def count(self, block: Block) -> None:
        """Hash bytes that are in the file already."""
        self._hasher.update(block)
        self.num_bytes += len(block)

    def sha256(self) -> str:
        """Digest of all bytes so far."""
        return self._hasher.hexdigest()

    def checkpoint(self) -> Callable[[], None]:
        """What to call once all bytes so far are on the disk."""
        note, num_bytes, hasher = self._note, self.num_bytes, self._hasher.copy()
        if note is None:
            return lambda: None
        return lambda: _write_note(note, num_bytes, hasher.hexdigest())

    def finish(self, path: str) -> None:
        """Put the whole file where others take it from."""
        if self._note is not None:
            self._note.unlink(missing_ok=True)
            os.replace(self._note.with_suffix(""), path)


class UnfinishedObjects:
    """The directory of unfinished objects.

    Args:
        root: The directory; made when it is needed.
        count_found: Called with the number of bytes that need not be fetched again.
    """

    def __init__(self, root: Path, count_found: Callable[[int], None]) -> None:
        self._root, self._count_found = root, count_found

    def held_bytes(self, listing: Listing, info: ObjectInfo) -> int:
        """How much of a listed object takes room here already."""
        if info.num_bytes <= KEPT_BYTES or not _is_kept(location := listing.location_of(info), info):
            return 0
        try:
            return min(self._path(location, info).stat().st_size, info.num_bytes)
        except FileNotFoundError:
            return 0

    @contextmanager
    def opened(self, location: Location, info: ObjectInfo, go_on: Callable[[], None]) -> Iterator[ArrivingFile | None]:
        """The file of an object, with what is proven to be there already.

        Args:
            location: Where the object is.
            info: The version of it.
            go_on: Called while what is there is hashed; what it raises ends that.

        Yields:
            The file; None where the object is none to be kept, or another process is at the same one.
        """
        if not _is_kept(location, info):
            yield None
            return
        path = self._path(location, info)
        self._root.mkdir(parents=True, exist_ok=True)
        for other in self._root.glob(f"{path.name[:_NAME_DIGITS]}-*"):
            if not other.suffix and other != path:  # of another version, which nobody will ask for again
                _remove_unlocked(other)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except PermissionError:  # somebody else's, in a home that several users share
            yield None
            return
        with FileIO(descriptor, "r+") as out:
            if not _lock(descriptor, path):
                yield None
                return
            file = _resumed(out, path.with_name(f"{path.name}.json"), go_on)
            self._count_found(file.num_bytes)
            yield file

    def _path(self, location: Location, info: ObjectInfo) -> Path:
        """Named by where the object is, and by its version: bytes of two are never in one file."""
        address = digest_value([location.endpoint, location.url])[:_NAME_DIGITS]
        version = digest_value([info.version, info.num_bytes])[:_NAME_DIGITS]
        return self._root / f"{address}-{version}"


def remove_forgotten(root: Path, unused_s: float = UNUSED_S) -> None:
    """Remove unfinished objects that nobody has gone on with for some time.

    Args:
        root: Their directory.
        unused_s: Seconds since they were last written to.
    """
    for path in list(root.iterdir()) if root.is_dir() else []:
        with suppress(FileNotFoundError, PermissionError):
            if time.time() - path.stat().st_mtime <= unused_s:
                continue
            if not path.suffix:
                _remove_unlocked(path)
            elif not path.with_suffix("").exists():
                path.unlink(missing_ok=True)


def write_all(descriptor: int, block: Block) -> None:
    """Write all of a block, which one call need not do on a disk that is nearly full."""
    written = os.write(descriptor, block)
    while written < len(block):
        written += os.write(descriptor, block[written:])


def _is_kept(location: Location, info: ObjectInfo) -> bool:
    return info.num_bytes > KEPT_BYTES and location.begins_anywhere(info)


def _resumed(out: FileIO, note: Path, go_on: Callable[[], None]) -> ArrivingFile:
    """A file with as many bytes as are noted, if those are the noted ones; else with none."""
    file = ArrivingFile(out, note)
    noted_bytes, noted_sha256 = _read_note(note)
    while chunk := _read(out, min(CHUNK_BYTES, noted_bytes - file.num_bytes)):
        file.count(chunk)
        go_on()
    if (file.num_bytes, file.sha256()) != (noted_bytes, noted_sha256):
        note.unlink(missing_ok=True)
        file = ArrivingFile(out, note)
    out.truncate(file.num_bytes)
    out.seek(file.num_bytes)
    return file


def _read(out: FileIO, num_bytes: int) -> bytes:
    """The next bytes of a file; none where its disk cannot give them, so that it begins anew."""
    try:
        return out.read(num_bytes) or b""
    except OSError:
        return b""


def _read_note(note: Path) -> tuple[int, str]:
    try:
        noted = json.loads(note.read_bytes())
        return max(0, int(noted["num_bytes"])), str(noted["sha256"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0, ""


def _write_note(note: Path, num_bytes: int, sha256: str) -> None:
    scratch = note.with_suffix(".new")
    scratch.write_text(json.dumps({"num_bytes": num_bytes, "sha256": sha256}))
    os.replace(scratch, note)


def _remove_unlocked(path: Path) -> None:
    """Remove an unfinished object that nobody is at."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except (FileNotFoundError, PermissionError):
        return
    try:
        if _lock(descriptor, path):
            path.unlink()
            path.with_name(f"{path.name}.json").unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """Take the lock of an open file, which the kernel frees when it is closed; False where another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))  # else: removed or finished in between
    except (BlockingIOError, FileNotFoundError):
        return False
