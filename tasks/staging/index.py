"""What this machine knows of its staged bytes, so that nothing is transferred or hashed twice.

Losing it costs time and nothing else: what is not known is transferred, and hashed, again.
"""

import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.staging.index_file import IndexFile

log = logging.getLogger(__name__)

_MOST_PARAMETERS = 999
"""Of one statement, in old versions of SQLite."""
_CHUNK = 500
"""Files that are looked up at once; one parameter each."""

Claim = tuple[str, int, str]
"""A file's path, and the size in bytes and the SHA-256 that it should have."""

_Identity = tuple[int, int]
_State = tuple[int, int, int]


class StagingIndex:
    """The digest of each object version that was staged, and which files have been hashed as they are.

    Args:
        path: The SQLite file; one that cannot be used, now or later, is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.tick: Callable[[], None] = lambda: None
        """Called now and then while files are hashed."""
        self._num_batches = 0
        self._objects: list[tuple[str, str, int, str, str]] = []
        self._proofs: dict[_Identity, tuple[_State, str]] = {}
        self._file = IndexFile(path)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def known_digests(self, source: str, objects: Sequence[ObjectInfo]) -> dict[str, str]:
        """The digest, by key, of each object that was staged before in the version that is listed now.

        Args:
            source: Where the objects are.
            objects: What is listed, sorted by key: both lists are gone through once, side by side.
        """

        def look_up(connection: sqlite3.Connection) -> dict[str, str]:
            rows = connection.execute(
                "SELECT key, num_bytes, version, sha256 FROM sources WHERE source = ? ORDER BY key", (source,)
            )
            found = {}
            row = rows.fetchone()
            for info in objects:
                while row and row[0] < info.key:
                    row = rows.fetchone()
                if row and info.version and row[:3] == (info.key, info.num_bytes, info.version):
                    found[info.key] = row[3]
            rows.close()
            return found

        return self._file.run(look_up)

    def remember_object(self, source: str, info: ObjectInfo, sha256: str) -> None:
        """Keep the digest of one version of an object."""
        self._objects.append((source, info.key, info.num_bytes, info.version, sha256))
        self._flush()

    def is_intact(self, path: Path, num_bytes: int, sha256: str) -> bool:
        """Whether a file has these bytes; it is hashed only if it changed since it was last proven."""
        [(_, intact)] = self.check_files([(str(path), num_bytes, sha256)])
        return intact

    def check_files(self, claims: Iterable[Claim]) -> Iterator[tuple[Claim, bool]]:
        """Whether each file is what it should be, in order; as ``is_intact``, with few looks into the index."""
        return ((claim, status is not None) for claim, status in self.prove_files(claims))

    def prove_files(self, claims: Iterable[Claim]) -> Iterator[tuple[Claim, os.stat_result | None]]:
        """The status in which each file was what it should be, in order; None where it is not."""
        waiting = iter(claims)
        while chunk := list(islice(waiting, _CHUNK)):
            statuses = [_regular_file(path) for path, _, _ in chunk]
            with self.batch():
                proofs = self._proofs_of([status for status in statuses if status])
                checked = [
                    (claim, status if self._is_right(claim, status, proofs) else None)
                    for claim, status in zip(chunk, statuses, strict=True)
                ]
            yield from checked

    def _is_right(
        self, claim: Claim, status: os.stat_result | None, proofs: Mapping[_Identity, tuple[_State, str]]
    ) -> bool:
        path, num_bytes, sha256 = claim
        if status is None or status.st_size != num_bytes:
            return False
        if proofs.get(_identity(status)) == (_state(status), sha256):
            return True
        if digest_file(Path(path), self.tick)[0] != sha256:
            return False
        self.remember_file(status, sha256)
        return True

    def remember_file(self, status: os.stat_result, sha256: str) -> None:
        """Keep that a file of this status has this digest: its inode, size and times stand for its bytes."""
        self._proofs[_identity(status)] = (_state(status), sha256)
        self._flush()

    def known_product(self, source: str, listing: str) -> str | None:
        """What the last listing of a source came to, if it was this one."""
        query = "SELECT product FROM listings WHERE source = ? AND listing = ?"
        rows = self._ask(query, source, listing)
        return str(rows[0][0]) if rows else None

    def remember_product(self, source: str, listing: str, product: str) -> None:
        """Keep what a listing of a source came to, for the case that nothing changes; the one before is forgotten."""
        self._remember("INSERT OR REPLACE INTO listings VALUES (?, ?, ?)", source, listing, product)

    def is_proven(self, dataset: str, state: str) -> bool:
        """Whether a dataset's directory was found right, as a whole, in this very state."""
        return self._ask("SELECT state FROM directories WHERE dataset = ?", dataset) == [(state,)]

    def remember_directory(self, dataset: str, state: str) -> None:
        """Keep that a dataset's directory is right in a state: its names, and each file's identity, size and times."""
        self._remember("INSERT OR REPLACE INTO directories VALUES (?, ?)", dataset, state)

    def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._file.run(lambda connection: connection.execute(query, values).fetchall())

    def _remember(self, statement: str, *values: str) -> None:
        """Write what only saves time: a full or read-only disk costs no more than that."""
        try:
            self._file.run(lambda connection: connection.execute(statement, values))
        except sqlite3.OperationalError as error:
            log.debug("Not remembered: %s", error)

    def follow_change(self, proven: os.stat_result, before: os.stat_result, after: os.stat_result, sha256: str) -> None:
        """Keep that a file is still right though its ctime changed, because it was renamed or a link to it was made.

        Only where nothing else happened to it; else it is hashed when it is looked at next.

        Args:
            proven: Its status when it was found right.
            before: Its status right before that.
            after: Its status right after.
            sha256: Its digest.
        """
        known = {(_state(proven), sha256), self._proofs.get(_identity(before))}  # the other: after an earlier link
        if (_state(before), sha256) not in known or _identity(proven) != _identity(before):
            return
        if _identity(after) == _identity(before) and _state(after)[:2] == _state(before)[:2]:
            self.remember_file(after, sha256)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write what the block remembers when it ends, however it ends: one sync to disk, not thousands."""
        self._num_batches += 1
        try:
            yield
        finally:
            self._num_batches -= 1
            self._flush()

    def _flush(self) -> None:
        if self._num_batches or not (self._objects or self._proofs):
            return
        proofs = [(*identity, *state, sha256) for identity, (state, sha256) in self._proofs.items()]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            _insert(connection, "sources", self._objects)
            _insert(connection, "proofs", proofs)
            connection.execute("COMMIT")

        self._file.run(write)
        self._objects.clear()
        self._proofs.clear()

    def _proofs_of(self, statuses: Iterable[os.stat_result]) -> dict[_Identity, tuple[_State, str]]:
        """What is remembered of files, by device and inode."""
        inodes: dict[int, list[int]] = {}
        for status in statuses:
            inodes.setdefault(status.st_dev, []).append(status.st_ino)
        found = {}
        for device, numbers in inodes.items():
            rows = self._ask(
                "SELECT inode, num_bytes, mtime_ns, ctime_ns, sha256 FROM proofs WHERE device = ? AND inode IN "
                f"({','.join('?' * len(numbers))})",
                device,
                *numbers,
            )
            for inode, num_bytes, mtime_ns, ctime_ns, sha256 in rows:
                found[device, inode] = ((num_bytes, mtime_ns, ctime_ns), sha256)
            pending = ((device, inode) for inode in numbers)
            found |= {identity: self._proofs[identity] for identity in pending if identity in self._proofs}
        return found


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Many rows a statement: each statement lets Python's other threads go first."""
    if not rows:
        return
    row = f"({','.join('?' * len(rows[0]))})"
    num_rows = _MOST_PARAMETERS // len(rows[0])
    for start in range(0, len(rows), num_rows):
        chunk = rows[start : start + num_rows]
        placeholders = ",".join([row] * len(chunk))
        values = tuple(chain.from_iterable(chunk))
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES {placeholders}", values)


def _regular_file(path: str) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def same_state(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks at one path found the same file, with nothing done to it in between."""
    return _identity(one) == _identity(other) and _state(one) == _state(other)


def _state(status: os.stat_result) -> _State:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
