"""The pool of staged bytes: one read-only file for each content, shared by every dataset that holds it."""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from trainyard.tasks.artifacts.local_files import NO_HARD_LINK
from trainyard.tasks.errors import ArtifactDamagedError
from trainyard.tasks.staging.index import Claim, StagingIndex

_READ_ONLY = 0o444

Content = tuple[str, int]
"""The SHA-256 of some bytes, and how many they are."""


class FinishedFile(NamedTuple):
    """A file on the disk that is ready for the pool."""

    path: str
    """Where it is now."""

    sha256: str
    """Digest of its bytes."""

    num_bytes: int
    """Size in bytes."""

    linked: os.stat_result | None = None
    """Of a hard link to a file of the user's own: the status in which it was hashed. Its mode is not ours to change,
    and others may write to it."""


class ObjectPool:
    """Files below ``<home>/objects``, each named by its SHA-256.

    Args:
        home: The home directory.
        index: Remembers which files have been proven.
    """

    def __init__(self, home: Path, index: StagingIndex) -> None:
        self._home = home
        self._root = str(home / "objects")
        self._damaged = home / "damaged"
        self._index = index
        self._made: set[str] = set()

    def path(self, sha256: str) -> str:
        """Where the content of a digest is kept."""
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def find_held(self, contents: Iterable[Content]) -> Iterator[bool]:
        """Whether each content is here and right, in order; what is here and wrong is moved out of the way."""
        claims = ((self.path(sha256), num_bytes, sha256) for sha256, num_bytes in contents)
        for claim, intact in self._index.check_files(claims):
            yield intact or self._is_mended(claim)

    def _is_mended(self, claim: Claim) -> bool:
        if not os.path.lexists(claim[0]):
            return False
        path, num_bytes, sha256 = Path(claim[0]), *claim[1:]
        with staging_lock(self._home):
            # Looked at again: another process may have put it there, or mended it, in between.
            if self._index.is_intact(path, num_bytes, sha256):
                return True
            if os.path.lexists(path):
                move_aside(path, self._damaged)
        return False

    def adopt(self, finished: Sequence[FinishedFile]) -> None:
        """Take finished files in."""
        moving = []
        there = [(file.sha256, file.num_bytes) for file in finished if os.path.lexists(self.path(file.sha256))]
        held = {sha256 for (sha256, _), is_held in zip(there, self.find_held(there), strict=True) if is_held}
        for file in finished:
            if file.sha256 in held:
                os.unlink(file.path)
                continue
            if file.linked is None:
                os.chmod(file.path, _READ_ONLY)
            target = self.path(file.sha256)
            self._make(os.path.dirname(target))
            moving.append((file, target))
        if not moving:
            return
        with staging_lock(self._home):
            for file, target in moving:
                self._move(file, target)

    def _move(self, file: FinishedFile, target: str) -> None:
        if file.linked is None:
            os.replace(file.path, target)
            self._index.remember_file(os.lstat(target), file.sha256)
            return
        before = os.lstat(file.path)
        os.replace(file.path, target)
        self._index.follow_change(file.linked, before, os.lstat(target), file.sha256)

    def _make(self, directory: str) -> None:
        if directory not in self._made:
            os.makedirs(directory, exist_ok=True)
            self._made.add(directory)

    def link(self, contents: Iterable[Content], destinations: Iterable[str]) -> None:
        """Put each content at a path: as a hard link, or where that cannot be, as a copy.

        Raises:
            ArtifactDamagedError: A content is gone or was changed since it was staged; staging again helps.
        """
        wanted, shown = tee(contents)
        claims = ((self.path(sha256), num_bytes, sha256) for sha256, num_bytes in wanted)
        proofs = self._index.prove_files(claims)
        for (sha256, _), (claim, proven), destination in zip(shown, proofs, destinations, strict=True):
            was_there = proven or os.path.lexists(claim[0])
            if not (proven or self._is_mended(claim)):
                raise _lost(sha256, "was damaged" if was_there else "was removed while it was needed")
            self._make(os.path.dirname(destination))
            self._link(sha256, destination, proven)

    def _link(self, sha256: str, destination: str, proven: os.stat_result | None) -> None:
        path = self.path(sha256)
        try:
            before = os.lstat(path)
            os.link(path, destination)
        except FileNotFoundError as error:
            raise _lost(sha256, "was removed while it was needed") from error
        except OSError as error:
            if error.errno not in NO_HARD_LINK:
                raise
            shutil.copyfile(path, destination)
            os.chmod(destination, _READ_ONLY)
        else:
            if proven:
                self._index.follow_change(proven, before, os.lstat(destination), sha256)


def _lost(sha256: str, what: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(f"Staged content {sha256[:12]} {what}; staging again helps.")


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
