"""A node's files by content: what is here is not sent again, and nothing is believed that was not hashed here.

Below the node's directory::

    objects/<first two digits>/<sha256>   one read-only file for each content
    objects/proofs.sqlite                 which file has been hashed as it is
    datasets/<sha256>/data/<key>          a dataset: hard links to objects
"""

import errno
import hashlib
import os
import shutil
import sqlite3
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NO_HARD_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}


@dataclass(frozen=True)
class Entry:
    """One file of a tree."""

    path: str
    """Relative, with forward slashes."""

    sha256: str
    """Digest of its bytes."""

    executable: bool = False
    """Whether it may be run as a program."""


class Pool:
    """The objects of a node.

    Args:
        root: The node's directory.
    """

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._partial = self._objects / "partial" / uuid.uuid4().hex
        self._partial.mkdir(parents=True)
        self._new: dict[tuple[int, int], tuple[int, int, int, str]] = {}
        self._proofs = sqlite3.connect(
            self._objects / "proofs.sqlite", timeout=60, isolation_level=None, check_same_thread=False
        )
        self._proofs.execute(
            "CREATE TABLE IF NOT EXISTS proofs (device INTEGER, inode INTEGER, num_bytes INTEGER, mtime_ns INTEGER,"
            " ctime_ns INTEGER, sha256 TEXT, PRIMARY KEY (device, inode)) WITHOUT ROWID"
        )

    def close(self) -> None:
        """Drop what was not finished."""
        self._keep_proofs()
        self._proofs.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def lacking(self, digests: Iterable[str]) -> list[str]:
        """Those objects that are not here, or are no longer what they were."""
        missing = [sha256 for sha256 in digests if not self._holds(sha256)]
        self._keep_proofs()
        return missing

    def write(self, sha256: str, chunk: bytes) -> None:
        """Append to an object that is arriving."""
        with (self._partial / sha256).open("ab") as out:
            out.write(chunk)

    def adopt(self, sha256: str, destination: Path | None = None) -> str | None:
        """Take an object that has arrived, or put it at a path of its own.

        Returns:
            What is wrong with it, or None.
        """
        arrived = self._partial / sha256
        arrived.touch()  # an empty file has no chunks
        found = _digest(arrived)
        if found != sha256:
            arrived.unlink()
            return f"its bytes hash to {found[:12]}, not to {sha256[:12]}"
        if destination is not None:
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(arrived, destination)
            return None
        arrived.chmod(0o444)
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(arrived, path)
        self._remember(path.lstat(), sha256)
        return None

    def settle(self) -> None:
        """Have everything that was adopted on disk, before it is noted as proven."""
        os.sync()
        self._keep_proofs()

    def build(self, destination: Path, entries: list[Entry], *, linked: bool) -> None:
        """Make a directory that holds exactly these files; one that does already stays as it is.

        Args:
            destination: Appears whole or not at all.
            entries: Its files, all of them in the pool.
            linked: As read-only hard links; else as copies that may be written to.
        """
        if linked and self._is_intact(destination, entries):
            return
        whole = self._partial / f"tree-{uuid.uuid4().hex}"
        whole.mkdir()
        for entry in entries:
            self._place(entry, whole / safe_relative(entry.path), linked)
        destination.parent.mkdir(parents=True, exist_ok=True)
        if destination.exists():
            os.replace(destination, self._partial / f"old-{uuid.uuid4().hex}")
        os.replace(whole, destination)
        self._keep_proofs()

    def _place(self, entry: Entry, path: Path, linked: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self._path(entry.sha256)
        if linked:
            try:
                os.link(source, path)
            except OSError as error:
                if error.errno not in _NO_HARD_LINK:
                    raise
                shutil.copyfile(source, path)
                path.chmod(0o444)
            self._remember(path.lstat(), entry.sha256)  # a link changes the inode's ctime, not its bytes
            return
        shutil.copyfile(source, path)
        path.chmod(0o755 if entry.executable else 0o644)

    def _is_intact(self, directory: Path, entries: list[Entry]) -> bool:
        expected = {safe_relative(entry.path).as_posix(): entry.sha256 for entry in entries}
        found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
        return found == set(expected) and all(
            self._is_proven(directory / name, sha256) for name, sha256 in expected.items()
        )

    def _holds(self, sha256: str) -> bool:
        path = self._path(sha256)
        if self._is_proven(path, sha256):
            return True
        path.unlink(missing_ok=True)
        return False

    def _is_proven(self, path: Path, sha256: str) -> bool:
        """Whether a file has these bytes; hashed only where it changed since it was last."""
        try:
            status = path.lstat()
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        identity = (status.st_dev, status.st_ino)
        proof = (
            self._new.get(identity)
            or self._proofs.execute(
                "SELECT num_bytes, mtime_ns, ctime_ns, sha256 FROM proofs WHERE device = ? AND inode = ?", identity
            ).fetchone()
        )
        if proof == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256):
            return True
        if _digest(path) != sha256:
            return False
        self._remember(status, sha256)
        return True

    def _remember(self, status: os.stat_result, sha256: str) -> None:
        proof = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256)
        self._new[status.st_dev, status.st_ino] = proof

    def _keep_proofs(self) -> None:
        """One write to disk for all that was proven since the last."""
        rows = [(*identity, *proof) for identity, proof in self._new.items()]
        self._proofs.execute("BEGIN")
        self._proofs.executemany("INSERT OR REPLACE INTO proofs VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._proofs.execute("COMMIT")
        self._new.clear()

    def _path(self, sha256: str) -> Path:
        return self._objects / sha256[:2] / sha256


def safe_relative(path: str) -> PurePosixPath:
    """A path that stays inside the directory it is put in.

    Raises:
        ValueError: It would not.
    """
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts or "\0" in path:
        raise ValueError(f"the path {path!r} leaves its directory")
    return relative


def _digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()
