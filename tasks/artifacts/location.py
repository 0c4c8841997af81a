"""Places at any fsspec URL, with our errors instead of everybody's."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any, Literal

from trainyard.tasks.artifacts import s3_objects
from trainyard.tasks.artifacts.digests import digest_file, read_chunks
from trainyard.tasks.artifacts.filesystems import open_filesystem
from trainyard.tasks.artifacts.local_files import (
    copy_file,
    create_file,
    file_version,
    hard_link,
    local_info,
    reflink,
    replacing,
    stat_file,
    walk_files,
)
from trainyard.tasks.artifacts.objects import ObjectInfo, is_folder_marker
from trainyard.tasks.artifacts.read_ahead import Block, never
from trainyard.tasks.artifacts.s3_listing import list_pages
from trainyard.tasks.artifacts.storage_errors import changed, cut_short, translated
from trainyard.tasks.credentials import endpoint_problem, redacted_url
from trainyard.tasks.errors import InvalidInputError, ObjectChangedError, StorageNotFoundError
from trainyard.tasks.settings import Settings
from trainyard.tasks.specs.urls import joined

Sharing = Literal["extents", "inode"]
"""How two local files have the same bytes on disk: until either is written to (a reflink), or as one file (a hard
link)."""


class Location:
    """A place in a filesystem: a URL, and the operations that Trainyard needs there.

    Every method raises the errors of ``storage_errors.translated`` in place of the backend's own.

    Args:
        url: Any fsspec URL, or a local path.
        storage_options: Passed to the fsspec implementation; may hold secrets, never shown.
        links: Whether hard links may be made to its local files, which changes how their versions are told apart.

    Raises:
        InvalidInputError: The URL's scheme is unknown, or it holds credentials.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None, *, links: bool = False) -> None:
        self._links, self._is_stopped = links, never
        self._fs, self._path = open_filesystem(url, storage_options or {})
        self._is_s3 = s3_objects.is_s3(url)
        self._fast = self._is_s3 and Settings().s3_transport != "s3fs"  # read once: settings cost as much as an object
        self.url = self._fs.unstrip_protocol(self._path) if self.is_local else url.rstrip("/")

    def __truediv__(self, key: str) -> "Location":
        """A place below this one."""
        child = object.__new__(Location)
        child._fs, child._is_s3, child._fast, child._links = self._fs, self._is_s3, self._fast, self._links
        child._is_stopped = self._is_stopped
        child._path = f"{self._base}{key}"
        child.url = joined(self.url, key)
        return child

    def until(self, is_stopped: Callable[[], bool]) -> "Location":
        """This place, from which reads of versions are given up, not asked for again, once nobody waits for them.

        Args:
            is_stopped: Whether that is so; called from several threads.
        """
        same = copy(self)
        same._is_stopped = is_stopped
        return same

    def __repr__(self) -> str:
        """The URL, without storage options."""
        return f"Location({self.url!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        protocol = self._fs.protocol
        return "file" in (protocol if isinstance(protocol, (tuple, list)) else (protocol,))

    @property
    def local_path(self) -> Path:
        """The path of a local location."""
        assert self.is_local, self.url
        return Path(self._path)

    @property
    def _base(self) -> str:
        """What the paths of everything below this place begin with."""
        path = self._path.rstrip("/")
        return f"{path}/" if path else str(self._fs.root_marker)

    @property
    def _name(self) -> str:
        return str(self._path.rstrip("/").rsplit("/", 1)[-1])

    @property
    def endpoint(self) -> str:
        """Address of the S3 server as its client resolves it (option, environment, profile); else empty.

        Raises:
            InvalidInputError: It holds credentials; the address is part of keys and of what is shown.
        """
        if not self._is_s3:
            return ""
        with translated(self.url):
            address = str(self._fs.s3.meta.endpoint_url)
        problem = endpoint_problem(address)
        if problem:
            raise InvalidInputError(f"The endpoint URL {redacted_url(address)} of {self.url} {problem}.")
        return address

    def exists(self) -> bool:
        """Whether there is an object here (for local files, a file or directory)."""
        with translated(self.url):
            return bool(self._fs.exists(self._path))

    def read_bytes(self) -> bytes:
        """The whole object."""
        return b"".join(self.read_chunks())  # not cat_file: s3fs's parallel ranges can mix two versions

    def read_chunks(self) -> Iterator[Block]:
        """The object as a stream of chunks, all of one version."""
        if self._is_s3:
            whole = s3_objects.read_small(self._fs, self._path) if self._fast else None
            if whole is not None:
                return iter((whole,))
            with translated(self.url):
                info = ObjectInfo.from_listing(self._name, s3_objects.head_object(self._fs, self._path))
            return self.read_version(info)
        return self._read_stream()

    def read_whole(self, info: ObjectInfo) -> Block | None:
        """The bytes of one listed version of the object here; None where they do not come in one answer.

        Raises:
            ObjectChangedError: The object is not, or no longer, that version.
            StorageUnavailableError: Fewer bytes came than were listed.
        """
        if not self._is_s3 or info.etag is None or info.num_bytes > s3_objects.BLOCK_BYTES:
            return None
        try:
            return s3_objects.read_whole(self._fs, self._path, info, self.url, self._is_stopped, fast=self._fast)
        except StorageNotFoundError as error:
            raise changed(self.url) from error

    def begins_anywhere(self, info: ObjectInfo) -> bool:
        """Whether ``read_version`` may begin in the middle: the storage gives ranges of one version."""
        return self._is_s3 and info.etag is not None

    def read_version(self, info: ObjectInfo, start: int = 0) -> Iterator[Block]:
        """The bytes of one listed version of the object here, a block at a time; never a mixture.

        Args:
            info: The object, as it was listed.
            start: The first byte to read; another than 0 only where it ``begins_anywhere``.

        Raises:
            ObjectChangedError: The object is not, or no longer, that version.
            StorageUnavailableError: Fewer bytes came than were listed.
        """
        whole = self.read_whole(info) if not start else None
        if whole is not None:
            yield whole
            return
        blocks = (
            s3_objects.read_blocks(self._fs, self._path, info, self.url, self._is_stopped, start, fast=self._fast)
            if self.begins_anywhere(info)
            else self._read_stream()
        )
        num_bytes = start
        try:
            for block in blocks:
                num_bytes += len(block)
                yield block
        except StorageNotFoundError as error:
            raise changed(self.url) from error
        self._require_version(info)
        if num_bytes != info.num_bytes:
            raise cut_short(self.url, info.num_bytes, num_bytes)

    def share_version(self, info: ObjectInfo, target: Path) -> Sharing | None:
        """Make a local file of one listed version of a local object here, sharing its bytes on disk where that goes.

        Returns:
            How they are shared; None where they are not, and the object is to be read. The target may be empty then.

        Raises:
            ObjectChangedError: The file is not, or no longer, that version.
        """
        if not self.is_local:
            return None
        with translated(self.url):
            if reflink(self.local_path, target):
                self._require_version(info)
                return "extents"
            if not self._links:
                return None
            target.unlink()
            if not hard_link(self.local_path, target):
                return None
            if file_version(target.lstat(), links=True) != info.version:
                raise changed(self.url)
            return "inode"

    def write_bytes(self, data: bytes) -> None:
        """Write the whole object at once: a reader sees the old one, or the new one."""
        with translated(self.url):
            if self.is_local:
                with replacing(self.local_path) as scratch:
                    scratch.write_bytes(data)
            else:
                self._fs.pipe_file(self._path, data)

    def create_bytes(self, data: bytes) -> bool:
        """Write the object only if there is none; of several writers at once exactly one gets True.

        Object stores without conditional writes fall back to a check before the write.
        """
        with translated(self.url):
            if self.is_local:
                return create_file(self.local_path, data)
            if self._fs.exists(self._path):
                return False
        return self._create_unasked(data)  # False: somebody was faster

    def swap_bytes(self, data: bytes, expected: ObjectInfo | None) -> ObjectInfo | None:
        """Write the object if it is still the expected version, or if there is none where none is expected.

        On S3 by a conditional write, where the server knows those (Amazon's, MinIO, Ceph; not rclone's); elsewhere
        by a check before the write.

        Returns:
            The version written; None where somebody else was faster.
        """
        if self._is_s3:
            try:
                with translated(self.url):
                    return s3_objects.swap_object(self._fs, self._path, data, expected.etag if expected else None)
            except (ObjectChangedError, StorageNotFoundError):
                return None
        try:
            found = self.find_object()
        except StorageNotFoundError:
            found = None
        if (found.version if found else None) != (expected.version if expected else None):
            return None
        self.write_bytes(data)
        return self.find_object()

    def has_conditional_writes(self) -> bool:
        """Whether the storage itself refuses to create an object that is there; tried with one that is then removed."""
        tried = self / f".conditions-{uuid.uuid4().hex}"
        try:
            return [tried._create_unasked(b""), tried._create_unasked(b"")] == [True, False]
        finally:
            tried.delete()

    def _create_unasked(self, data: bytes) -> bool:
        """Create an object without a look beforehand; False where the storage refuses, for there is one.

        To s3fs that is an existing file only where the server's error names the condition, as Amazon's does.
        """
        try:
            with translated(self.url):
                self._fs.pipe_file(self._path, data, mode="create")
        except (FileExistsError, ObjectChangedError):
            return False
        return True

    def upload(self, path: Path, sha256: str | None = None) -> bool:
        """Copy a local file here, whole or not at all.

        Args:
            path: The file.
            sha256: The digest that its bytes must still have.

        Returns:
            Whether the file was the expected one to the end; else there is nothing here.
        """
        with translated(self.url):
            if self.is_local:
                return copy_file(path, self.local_path, sha256)
            before = file_version(path.stat())
            if sha256 and digest_file(path)[0] != sha256:
                return False
            self._fs.put_file(str(path), self._path)
        if sha256 and file_version(path.stat()) != before:
            self.delete()
            return False
        return True

    def touch(self) -> None:
        """Note that the object was used just now, where that costs nothing: a local file's time."""
        if self.is_local:
            with suppress(OSError):
                os.utime(self._path)

    def clear_directory(self) -> None:
        """Rename a local directory that is where an object belongs, beside it: no file can take its place."""
        if self.is_local and self.local_path.is_dir():
            with translated(self.url):
                self.local_path.rename(f"{self._path}.not-an-object-{uuid.uuid4().hex[:8]}")

    def delete(self) -> None:
        """Remove the object, if it is there."""
        with translated(self.url):
            if self._fs.exists(self._path):
                self._fs.rm(self._path)

    def find_object(self) -> ObjectInfo | None:
        """The object here (with its file name as key), or None where this is a prefix or directory.

        Raises:
            StorageNotFoundError: There is nothing here: no such bucket, or no such object or prefix.
        """
        with translated(self.url):
            if self.is_local:
                status = stat_file(self.local_path)
                return None if status is None else local_info(self._name, status, links=self._links)
            if self._is_s3:
                found = s3_objects.find_object(self._fs, self._path)
                return ObjectInfo.from_listing(self._name, found) if found else None
            info = dict(self._fs.info(self._path))
            return self._info_of(self._name, info) if info["type"] == "file" and not _is_folder(info) else None

    def list_objects(self, *, may_vanish: bool = False) -> Iterator[ObjectInfo]:
        """Every object below this prefix, in no particular order; nothing where there is nothing.

        Objects that only stand for an empty folder are left out.

        Args:
            may_vanish: Leave out local files that are gone before they are looked at.
        """
        with translated(self.url):
            if self.is_local:
                for key, status in walk_files(self.local_path, may_vanish=may_vanish):
                    yield local_info(key, status, links=self._links)
                return
            if self._is_s3:
                yield from self._list_s3()
                return
            base = self._base
            for path, info in self._fs.find(self._path, detail=True).items():
                if not path.startswith(base):
                    raise StorageNotFoundError(f"{self.url} lists {path!r}: check it for doubled slashes.")
                if not is_folder_marker(path, info["size"]):
                    found = info if info["size"] is not None else dict(self._fs.info(path))  # of a web page's links
                    yield self._info_of(path[len(base) :], found)

    def _info_of(self, key: str, info: Mapping[str, Any]) -> ObjectInfo:
        if info["size"] is None:
            raise InvalidInputError(
                f"The server does not tell the size of {info['name']} (no Content-Length), so that nothing could prove "
                "it whole: bring it to a datastore that does."
            )
        return ObjectInfo.from_listing(key, info)

    def first_object(self) -> ObjectInfo | None:
        """Some object below this prefix, found without listing all of them; None where there is none."""
        if not self._is_s3:
            return next(self.list_objects(), None)
        with translated(self.url):
            return s3_objects.first_object(self._fs, self._path)

    def check_readable(self) -> None:
        """Prove that the object here may be read, without reading it."""
        with translated(self.url):
            if self.is_local:
                self.local_path.open("rb").close()
            elif self._is_s3:
                s3_objects.find_object(self._fs, self._path)
            else:
                self._fs.info(self._path)

    def list_names(self) -> list[str]:
        """Names directly below this prefix, sorted; empty where there is nothing."""
        with translated(self.url):
            try:
                paths = self._fs.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def _read_stream(self) -> Iterator[Block]:
        with (
            translated(self.url),
            self._fs.open(self._path, "rb", block_size=s3_objects.BLOCK_BYTES) as stream,
        ):
            yield from read_chunks(stream)

    def _list_s3(self) -> Iterator[ObjectInfo]:
        prefix = f"{self._path.rstrip('/').partition('/')[2]}/".lstrip("/")
        for page in list_pages(self._fs, self._path):
            for found in page:
                if not is_folder_marker(found["Key"], found["Size"]):
                    yield ObjectInfo.from_s3(found["Key"][len(prefix) :], found)

    def _require_version(self, info: ObjectInfo) -> None:
        try:
            found = self.find_object()
        except StorageNotFoundError as error:
            raise changed(self.url) from error
        if found is None or found.version != info.version:
            raise changed(self.url)


def _is_folder(info: Mapping[str, Any]) -> bool:
    """Whether a web address came to that of a folder, whose page is no data."""
    return str(info.get("url") or "").endswith("/")
