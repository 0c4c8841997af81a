"""The store: ``put`` gives a reference, ``verify`` and ``materialize`` believe nothing but the digest.

Layout under the store's URL::

    objects/<first two digits>/<sha256>        the bytes of a file, or the listing of a tree
    cache/<stage>/<key>.json                    stage records (trainyard.tasks.caching)
    runs/<time>-<pipeline run id>/<stage>.json  which key each stage of a run had (trainyard.tasks.caching)
    models/<name>/<version>/                    the registry (trainyard.tasks.registry)
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TypeVar

from filelock import FileLock

from trainyard.tasks.artifacts.digests import canonical_json, digest_bytes, digest_file
from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.artifacts.read_ahead import Block
from trainyard.tasks.artifacts.references import ArtifactRef, TreeEntry, TreeListing
from trainyard.tasks.errors import (
    ArtifactDamagedError,
    InvalidInputError,
    StorageAccessError,
    StorageNotFoundError,
    StorageUnavailableError,
)

_PUT_ATTEMPTS = 3
_RENEWED_S = 1800.0
"""How old an object on a server may be for whom it is stored again without being written again: what was written within
an hour, 'trainyard gc' leaves alone."""
_NUM_WORKERS = 8
"""Objects in flight at once, where each waits for a network."""

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class ArtifactStore:
    """Content-addressed files and trees under one fsspec URL.

    Writing the same content twice, or at the same time, is harmless: an object is written under its own digest,
    atomically, and never changed. One that is damaged stays until its content is stored again: bytes that are
    read wrong once may be right in the store.

    Args:
        url: Any fsspec URL or a local path.
    """

    def __init__(self, url: str) -> None:
        self.root = Location(url)

    @property
    def url(self) -> str:
        """The store's URL."""
        return self.root.url

    def put_bytes(self, data: bytes) -> ArtifactRef:
        """Store bytes as a file."""
        sha256 = digest_bytes(data)
        target = self._object(sha256)
        if not self.holds(sha256):
            target.write_bytes(data)
        return ArtifactRef(uri=target.url, sha256=sha256, num_bytes=len(data))

    def put_file(self, path: Path) -> ArtifactRef:
        """Store a local file.

        Raises:
            ArtifactDamagedError: The file keeps changing while it is stored; nothing wrong is stored.
        """
        for _ in range(_PUT_ATTEMPTS):
            sha256, num_bytes = digest_file(path)
            target = self._object(sha256)
            if self.holds(sha256) or target.upload(path, sha256):
                return ArtifactRef(uri=target.url, sha256=sha256, num_bytes=num_bytes)
        raise ArtifactDamagedError(f"{path} changes while it is stored: let whatever writes to it end first.")

    def put_tree(self, directory: Path) -> ArtifactRef:
        """Store every regular file below a local directory, as one unit. Links and empty folders are left out."""
        files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
        return self.put_files({path.relative_to(directory).as_posix(): path for path in files})

    def put_files(self, files: Mapping[str, Path]) -> ArtifactRef:
        """Store local files as one tree.

        Args:
            files: Path in the tree (forward slashes) to local file. Bytes of a name that are not UTF-8 are written
                as a backslash and their hexadecimal digits.

        Raises:
            InvalidInputError: Two names would be the same when written so.
        """

        def put(item: tuple[str, Path]) -> TreeEntry:
            relative, path = item
            ref = self.put_file(path)
            executable = os.access(path, os.X_OK)
            return TreeEntry(path=relative, sha256=ref.sha256, num_bytes=ref.num_bytes, executable=executable)

        entries = self._each(put, sorted(_as_text(files).items()))
        listing = TreeListing(entries=tuple(entries))
        ref = self.put_bytes(canonical_json(listing.model_dump(mode="json")))
        return ref.model_copy(update={"kind": "tree", "num_bytes": sum(e.num_bytes for e in entries)})

    def read_bytes(self, ref: ArtifactRef) -> bytes:
        """The bytes of a file artifact, verified.

        Raises:
            ArtifactDamagedError: It is missing, or its bytes are not those of its digest.
        """
        return self._read_object(ref.sha256)

    def list_tree(self, ref: ArtifactRef) -> TreeListing:
        """The files of a tree artifact; raises as ``read_bytes`` does."""
        return self.list_tree_of(ref.sha256)

    def list_tree_of(self, sha256: str) -> TreeListing:
        """The files of the tree with a digest; raises as ``read_bytes`` does."""
        return TreeListing.model_validate_json(self._read_object(sha256))

    def read_entry(self, ref: ArtifactRef, path: str) -> bytes:
        """The bytes of one file of a tree, verified.

        Raises:
            KeyError: The tree has no such file.
            ArtifactDamagedError: As ``read_bytes``.
        """
        for entry in self.list_tree(ref).entries:
            if entry.path == path:
                return self._read_object(entry.sha256)
        raise KeyError(path)

    def find_entry(self, ref: ArtifactRef, path: str) -> ArtifactRef:
        """A reference to one file of a tree; raises as ``read_entry`` does."""
        for entry in self.list_tree(ref).entries:
            if entry.path == path:
                return self._reference(entry)
        raise KeyError(path)

    def find_entries(self, ref: ArtifactRef) -> dict[str, ArtifactRef]:
        """References to all files of a tree, by path, from one look at its listing; raises as ``read_bytes`` does."""
        return {entry.path: self._reference(entry) for entry in self.list_tree(ref).entries}

    def verify(self, ref: ArtifactRef) -> None:
        """Prove that an artifact is whole by reading and hashing all of it.

        Raises:
            ArtifactDamagedError: Something is missing or differs.
        """
        if ref.kind == "file":
            self._verify_object(ref.sha256)
            return
        self._each(self._verify_object, {entry.sha256 for entry in self.list_tree(ref).entries})

    def holds(self, sha256: str) -> bool:
        """Whether an object is here and right, and stays for as long as one that is stored just now.

        What is damaged is not held: it must not be kept in place of what is whole. Nor is what has been on a server
        for long, where only writing it again says that it is used.
        """
        target = self._object(sha256)
        try:
            self._verify_object(sha256)
        except ArtifactDamagedError:
            target.clear_directory()
            return False
        if self.root.is_local:
            target.touch()  # 'trainyard gc' leaves it alone
            return True
        return not _is_aging(target)

    def materialize(self, ref: ArtifactRef, destination: Path) -> Path:
        """Copy an artifact to a local path, verified on the way; the path appears whole or not at all.

        Args:
            ref: A file or tree of this store.
            destination: Where to put it; for a tree, the directory, which must not exist. A file that is there is
                replaced.

        Raises:
            ArtifactDamagedError: Something is missing or differs.
        """
        with self._copy_beside(ref, destination) as whole:
            os.replace(whole, destination)
        return destination

    def materialize_once(self, ref: ArtifactRef, destination: Path) -> Path:
        """Like ``materialize``, but keeps a copy that is there already and still right; a wrong one is replaced.

        Of several that ask at once, one makes it. Nobody sees half of it: a wrong one goes as a whole, too.
        """
        if self._is_copy(ref, destination):
            return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(destination.with_name(f"{destination.name}.lock")):
            if self._is_copy(ref, destination):  # somebody else was faster
                return destination
            with self._copy_beside(ref, destination) as whole:
                if destination.is_dir() or (
                    ref.kind == "tree" and os.path.lexists(destination)
                ):  # not replaced by rename
                    os.replace(destination, whole.with_name("wrong"))
                os.replace(whole, destination)
        return destination

    @contextmanager
    def _copy_beside(self, ref: ArtifactRef, destination: Path) -> Iterator[Path]:
        """A verified copy, beside its destination, in a directory that is removed with what is left in it."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
        try:
            whole = scratch / "content"
            if ref.kind == "file":
                self._download(ref.sha256, whole)
            else:
                whole.mkdir()
                self._each(lambda entry: self._download_entry(entry, whole), self.list_tree(ref).entries)
            yield whole
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _is_copy(self, ref: ArtifactRef, path: Path) -> bool:
        try:
            if ref.kind == "file":
                return path.is_file() and digest_file(path)[0] == ref.sha256
            files = {p.relative_to(path).as_posix(): digest_file(p)[0] for p in path.rglob("*") if p.is_file()}
        except FileNotFoundError:  # somebody puts a whole one in its place just now
            return False
        return path.is_dir() and files == {entry.path: entry.sha256 for entry in self.list_tree(ref).entries}

    def _reference(self, entry: TreeEntry) -> ArtifactRef:
        return ArtifactRef(uri=self._object(entry.sha256).url, sha256=entry.sha256, num_bytes=entry.num_bytes)

    def _object(self, sha256: str) -> Location:
        return self.root / f"objects/{sha256[:2]}/{sha256}"

    def _read_object(self, sha256: str) -> bytes:
        return b"".join(self._verified_chunks(sha256))

    def _verify_object(self, sha256: str) -> None:
        for _ in self._verified_chunks(sha256):
            pass

    def _download(self, sha256: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            for chunk in self._verified_chunks(sha256):
                out.write(chunk)

    def _download_entry(self, entry: TreeEntry, directory: Path) -> None:
        path = directory / _safe_relative(entry.path)
        self._download(entry.sha256, path)
        path.chmod(0o755 if entry.executable else 0o644)

    def _each(self, do: Callable[[_Item], _Answer], items: Iterable[_Item]) -> list[_Answer]:
        """Do something for each item, and give the answers in their order; raises the first error."""
        if self.root.is_local:  # one disk, one reader
            return [do(item) for item in items]
        with ThreadPoolExecutor(_NUM_WORKERS, thread_name_prefix="store") as executor:
            return list(executor.map(do, items))

    def _verified_chunks(self, sha256: str) -> Iterator[Block]:
        """The object's bytes; raises after the last one if they are not those of the digest."""
        hasher = hashlib.sha256()
        try:
            for chunk in self._object(sha256).read_chunks():
                hasher.update(chunk)
                yield chunk
        except StorageNotFoundError as error:
            raise _missing(sha256, self.url) from error
        except (OSError, StorageAccessError, StorageUnavailableError) as error:
            if not self.root.is_local:  # whoever may not read one object of a server may not read others, either
                raise
            raise _unreadable(sha256, self.url, error) from error
        if hasher.hexdigest() != sha256:
            raise _damaged(sha256, hasher.hexdigest(), self.url)


def _is_aging(location: Location) -> bool:
    """Whether an object may be removed for its age soon, or was just now."""
    try:
        found = location.find_object()
    except StorageNotFoundError:
        return True
    return found is None or 0 < found.modified_s < time.time() - _RENEWED_S


def _as_text(files: Mapping[str, Path]) -> dict[str, Path]:
    """Names that any system can write; Linux's may hold any bytes, which Python reads as lone surrogates."""
    named = {name.encode(errors="surrogateescape").decode(errors="backslashreplace"): p for name, p in files.items()}
    if len(named) < len(files):
        odd = sorted(name for name in files if name not in named)
        raise InvalidInputError(
            f"The file names {odd!r} are not UTF-8, and what they would be kept as is the name of other files; rename "
            "them."
        )
    return named


def _safe_relative(path: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise ArtifactDamagedError(f"A stored tree names the file {path!r}, which lies outside it; it is not ours.")
    return relative


def _missing(sha256: str, url: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(f"Artifact {sha256[:12]} is missing from the store {url}; its stage makes it again.")


def _unreadable(sha256: str, url: str, error: Exception) -> ArtifactDamagedError:
    return ArtifactDamagedError(f"Artifact {sha256[:12]} in the store {url} cannot be read: {error}")


def _damaged(expected: str, found: str, url: str) -> ArtifactDamagedError:
    return ArtifactDamagedError(
        f"Artifact {expected[:12]} in the store {url} is damaged: its bytes hash to {found[:12]}; "
        "its stage will make it again."
    )
