"""The pool of staged bytes: one read-only file for each content, shared by every dataset that holds it."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.staging.index import StagingIndex

# Other disks, filesystems without hard links, and files that have as many links as they can.
_NO_HARD_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP}
_READ_ONLY = 0o444


class ObjectPool:
    """Files below ``<home>/objects``, each named by its SHA-256.

    Args:
        home: The home directory.
        index: Remembers which files have been proven.
    """

    def __init__(self, home: Path, index: StagingIndex) -> None:
        self._home = home
        self.root = home / "objects"
        self._damaged = home / "damaged"
        self._index = index
        self._made: set[Path] = set()

    def path(self, sha256: str) -> Path:
        """Where the content of a digest is kept."""
        return self.root / sha256[:2] / sha256

    def holds(self, sha256: str, num_bytes: int) -> bool:
        """Whether the content is here and right; what is here and wrong is moved out of the way."""
        path = self.path(sha256)
        if self._index.is_intact(path, num_bytes, sha256):
            return True
        if not os.path.lexists(path):
            return False
        with staging_lock(self._home):
            # Looked at again: another process may have put it there, or mended it, in between.
            if self._index.is_intact(path, num_bytes, sha256):
                return True
            if os.path.lexists(path):
                move_aside(path, self._damaged)
        return False

    def adopt(self, finished: Iterable[tuple[Path, str, int]]) -> None:
        """Take finished files in (path, digest, size), whose bytes are those of the digest, and on disk (fsync)."""
        moving = []
        for path, sha256, num_bytes in finished:
            if self.holds(sha256, num_bytes):
                path.unlink()
                continue
            os.chmod(path, _READ_ONLY)
            self._make(self.path(sha256).parent)
            moving.append((path, sha256))
        with staging_lock(self._home):
            for path, sha256 in moving:
                os.replace(path, self.path(sha256))
                self._index.remember_file(os.lstat(self.path(sha256)), sha256)

    def _make(self, directory: Path) -> None:
        if directory not in self._made:
            directory.mkdir(parents=True, exist_ok=True)
            self._made.add(directory)

    def link(self, sha256: str, num_bytes: int, destination: Path) -> None:
        """Put the content at a path: as a hard link, or where that cannot be, as a copy.

        Raises:
            ArtifactDamagedError: The content is gone or was changed since it was staged; staging again helps.
        """
        if not self.holds(sha256, num_bytes):
            raise ArtifactDamagedError(f"Staged content {sha256[:12]} was damaged; staging again helps.")
        self._make(destination.parent)
        try:
            os.link(self.path(sha256), destination)
        except FileNotFoundError as error:
            raise ArtifactDamagedError(
                f"Staged content {sha256[:12]} was removed while it was needed; staging again helps."
            ) from error
        except OSError as error:
            if error.errno not in _NO_HARD_LINK:
                raise
            shutil.copyfile(self.path(sha256), destination)
            destination.chmod(_READ_ONLY)
        else:
            # A link changes the inode's ctime, not its bytes.
            self._index.remember_file(destination.lstat(), sha256)


def staging_lock(home: Path) -> FileLock:
    """Held, for a moment, by whoever of several processes moves staged bytes into place or out of the way."""
    return FileLock(home / "objects" / ".lock")


def move_aside(path: Path, damaged: Path) -> Path:
    """Move what is not what it should be out of the way, for a person to look at.

    Returns:
        Where it is now.
    """
    damaged.mkdir(parents=True, exist_ok=True)
    aside = damaged / f"{path.name[:16]}-{uuid.uuid4().hex[:8]}"
    os.replace(path, aside)
    return aside
