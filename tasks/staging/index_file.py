"""The file of the staging index: one that is damaged, or of another release, is replaced by an empty one."""

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 1
"""Kept in the file (``PRAGMA user_version``): to be raised with every change of the tables."""
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS sources (
        source TEXT, key TEXT, num_bytes INTEGER, version TEXT, sha256 TEXT, PRIMARY KEY (source, key)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS proofs (
        device INTEGER, inode INTEGER, num_bytes INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, sha256 TEXT,
        PRIMARY KEY (device, inode)
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS directories (dataset TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS listings (source TEXT PRIMARY KEY, listing TEXT, product TEXT) WITHOUT ROWID",
)
_TABLES = {"sources", "proofs", "directories", "listings"}
_WAIT_S = 60.0
_OTHER_TABLES = ("no such table", "no such column", "has no column", "columns but")
"""How SQLite says that tables are not those of this release."""

T = TypeVar("T")


class IndexFile:
    """An SQLite file with the index's tables.

    Args:
        path: The file; made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._tell(error)
            self._remove()
            self._open()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Let something be asked or written; once more, of an empty index, where the file turns out to be damaged.

        Args:
            work: Is given the connection; called twice then.
        """
        try:
            return self._work(work)
        except sqlite3.DatabaseError as error:
            if self._is_at_path():
                if not _is_damage(error):
                    raise
                self._tell(error)
                self._remove()
        # Or another process has put a new one there.
        self._connection.close()
        self._open()
        return self._work(work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Whatever goes wrong, no transaction is left open, in which the next one could not begin."""
        try:
            return work(self._connection)
        except BaseException:
            with suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise

    def _open(self) -> None:
        self._connection = _connect(self._path)
        self._status = os.stat(self._path)

    def _is_at_path(self) -> bool:
        """Whether the open file is still the one that others open."""
        with suppress(FileNotFoundError):
            return os.path.samestat(self._status, os.stat(self._path))
        return False

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)

    def _tell(self, error: sqlite3.DatabaseError) -> None:
        log.warning(
            "The index of staged data (%s) cannot be used and is made anew, which costs time and nothing else: %s.",
            self._path,
            error,
        )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    try:
        if _version(connection) != _SCHEMA_VERSION:
            _make_tables(connection)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables that a file lacks, of several processes one; files of before they had a number have some."""
    connection.execute("BEGIN IMMEDIATE")
    if (version := _version(connection)) != _SCHEMA_VERSION:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version or not tables <= _TABLES:
            raise sqlite3.DatabaseError("it is of another release")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file is to blame; operational errors are those of a full disk, a lock, missing rights."""
    if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError)):  # a mistake of ours
        return False
    return not isinstance(error, sqlite3.OperationalError) or any(words in str(error) for words in _OTHER_TABLES)
