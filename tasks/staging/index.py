"""What this machine knows of its staged bytes, so that nothing is transferred or hashed twice.

Losing it costs time and nothing else: what is not known is transferred, and hashed, again.
"""

import os
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainyard.tasks.artifacts.digests import digest_file
from trainyard.tasks.artifacts.objects import ObjectInfo

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sources (
    source TEXT, key TEXT, num_bytes INTEGER, version TEXT, sha256 TEXT, PRIMARY KEY (source, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS proofs (
    device INTEGER, inode INTEGER, num_bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, sha256 TEXT,
    PRIMARY KEY (device, inode)
) WITHOUT ROWID;
"""
_WAIT_S = 60.0


class StagingIndex:
    """The digest of each object version that was staged, and which files have been hashed as they are.

    Args:
        path: The SQLite file; one that cannot be read is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._batching = False
        self._objects: list[tuple[str, str, int, str, str]] = []
        self._proofs: dict[tuple[int, int], tuple[tuple[int, int, int], str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = _connect(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            path.unlink()
            path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
            self._connection = _connect(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def known_digests(self, source: str, objects: Iterable[ObjectInfo]) -> dict[str, str]:
        """The digest, by key, of each object that was staged before in the version that is listed now."""
        rows = self._connection.execute(
            "SELECT key, num_bytes, version, sha256 FROM sources WHERE source = ?", (source,)
        )
        known = {(key, num_bytes, version): sha256 for key, num_bytes, version, sha256 in rows}
        found = ((info.key, known.get((info.key, info.num_bytes, info.version))) for info in objects if info.version)
        return {key: sha256 for key, sha256 in found if sha256}

    def remember_object(self, source: str, info: ObjectInfo, sha256: str) -> None:
        """Keep the digest of one version of an object."""
        self._objects.append((source, info.key, info.num_bytes, info.version, sha256))
        self._flush()

    def is_intact(self, path: Path, num_bytes: int, sha256: str) -> bool:
        """Whether a file has these bytes; it is hashed only if it changed since it was last proven."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
            return False
        if self._proven(status) == sha256:
            return True
        if digest_file(path)[0] != sha256:
            return False
        self.remember_file(status, sha256)
        return True

    def remember_file(self, status: os.stat_result, sha256: str) -> None:
        """Keep that a file of this status has this digest: its inode, size and times stand for its bytes."""
        self._proofs[_identity(status)] = (_state(status), sha256)
        self._flush()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write what the block remembers when it ends, however it ends: one sync to disk, not thousands."""
        self._batching = True
        try:
            yield
        finally:
            self._batching = False
            self._flush()

    def _flush(self) -> None:
        if self._batching:
            return
        proofs = [(*identity, *state, sha256) for identity, (state, sha256) in self._proofs.items()]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?)", self._objects)
        self._connection.executemany("INSERT OR REPLACE INTO proofs VALUES (?, ?, ?, ?, ?, ?)", proofs)
        self._connection.execute("COMMIT")
        self._objects.clear()
        self._proofs.clear()

    def _proven(self, status: os.stat_result) -> str | None:
        state, sha256 = self._proofs.get(_identity(status)) or self._stored_proof(status)
        return sha256 if state == _state(status) else None

    def _stored_proof(self, status: os.stat_result) -> tuple[tuple[int, int, int] | None, str | None]:
        row = self._connection.execute(
            "SELECT num_bytes, mtime_ns, ctime_ns, sha256 FROM proofs WHERE device = ? AND inode = ?",
            _identity(status),
        ).fetchone()
        return (row[:3], row[3]) if row else (None, None)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    connection.executescript(_SCHEMA)
    return connection


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
