"""The one module that imports fsspec: places at any fsspec URL, with our errors instead of everybody's."""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.asyn import sync
from fsspec.core import url_to_fs

from trainyard.tasks.artifacts.digests import CHUNK_BYTES, read_chunks
from trainyard.tasks.artifacts.local_files import file_version, stat_file, walk_files
from trainyard.tasks.artifacts.storage_errors import changed, translated
from trainyard.tasks.errors import InvalidInputError, ObjectChangedError, StorageNotFoundError, StorageUnavailableError

BLOCK_BYTES = 8 * CHUNK_BYTES
"""Most bytes of one ranged read."""

_S3_SCHEMES = ("s3://", "s3a://")
# botocore tries this often, s3fs repeats that: a dead endpoint is given up after 2 x 2 x 5 s, not after minutes.
_S3_ATTEMPTS = 2
_S3_CLIENT = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "retries": {"mode": "standard", "total_max_attempts": _S3_ATTEMPTS},
}
_BLOCK_ATTEMPTS = 3


def known_scheme(url: str) -> bool:
    """Whether fsspec has an implementation for the URL's scheme (a plain path counts as ``file``)."""
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    return scheme in fsspec.available_protocols()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object."""

    key: str
    """Path relative to the listed location, with forward slashes."""

    num_bytes: int
    """Size in bytes."""

    version: str
    """What changes when the object changes: its ETag, or for local files inode and times."""

    etag: str | None = None
    """The server's own validator, quoted as it gave it, where it gives one."""


class Location:
    """A place in a filesystem: a URL, and the operations that Trainyard needs there.

    Every method raises the errors of ``storage_errors.translated`` in place of the backend's own.

    Args:
        url: Any fsspec URL, or a local path.
        storage_options: Passed to the fsspec implementation; may hold secrets, never shown.

    Raises:
        InvalidInputError: The URL's scheme is unknown.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        if not known_scheme(url):
            raise InvalidInputError(unknown_scheme(url))
        self._options = dict(storage_options or {})
        self._is_s3 = url.startswith(_S3_SCHEMES)
        if self._is_s3:
            self._options = _s3_options(self._options)
            _forget_stale_credentials()
        with translated(url):
            self._fs, self._path = url_to_fs(url, **self._options)
        if self._is_s3:
            self._fs.retries = _S3_ATTEMPTS
        self.url = self._fs.unstrip_protocol(self._path) if self.is_local else url.rstrip("/")

    def __truediv__(self, key: str) -> "Location":
        """A place below this one."""
        child = object.__new__(Location)
        child._options, child._fs, child._is_s3 = self._options, self._fs, self._is_s3
        child._path = f"{self._path.rstrip('/')}/{key}"
        child.url = f"{self.url.rstrip('/')}/{key}"
        return child

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
    def endpoint(self) -> str:
        """Address of the S3 server, as its client resolves it (option, environment, profile); empty elsewhere."""
        if not self._is_s3:
            return ""
        with translated(self.url):
            return str(self._fs.s3.meta.endpoint_url)

    def exists(self) -> bool:
        """Whether there is an object here (for local files, a file or directory)."""
        with translated(self.url):
            return bool(self._fs.exists(self._path))

    def read_bytes(self) -> bytes:
        """The whole object."""
        return b"".join(self.read_chunks())  # not cat_file: s3fs's parallel ranges can mix two versions

    def read_chunks(self) -> Iterator[bytes]:
        """The object as a stream of chunks."""
        with translated(self.url), self._fs.open(self._path, "rb", block_size=BLOCK_BYTES) as stream:
            yield from read_chunks(stream)

    def read_version(self, info: ObjectInfo) -> Iterator[bytes]:
        """The bytes of one listed version of the object here, a block at a time; never a mixture of two versions.

        Args:
            info: The object, as it was listed.

        Raises:
            ObjectChangedError: The object is not, or no longer, that version.
            StorageUnavailableError: Fewer bytes came than were listed.
        """
        ranged = self._is_s3 and info.etag is not None
        num_bytes = 0
        for block in self._s3_blocks(info) if ranged else self.read_chunks():
            num_bytes += len(block)
            yield block
        if not ranged or info.num_bytes > BLOCK_BYTES:  # a single answer is one version already
            self._require_version(info)
        if num_bytes != info.num_bytes:
            raise _cut_short(self.url, info.num_bytes, num_bytes)

    def write_bytes(self, data: bytes) -> None:
        """Write the whole object at once: a reader sees the old one, or the new one."""
        with translated(self.url):
            if self.is_local:
                with self._local_scratch() as scratch:
                    scratch.write_bytes(data)
            else:
                self._fs.pipe_file(self._path, data)

    def create_bytes(self, data: bytes) -> bool:
        """Write the object only if there is none; of several writers at once exactly one gets True.

        Object stores without conditional writes fall back to a check before the write.
        """
        with translated(self.url):
            if self.is_local:
                return self._create_local(data)
            if self._fs.exists(self._path):
                return False
            try:
                self._fs.pipe_file(self._path, data, mode="create")
            except FileExistsError:  # somebody was faster
                return False
            return True

    def upload(self, path: Path) -> None:
        """Copy a local file here, whole or not at all."""
        with translated(self.url):
            if self.is_local:
                with self._local_scratch() as scratch, path.open("rb") as source, scratch.open("wb") as out:
                    for chunk in read_chunks(source):
                        out.write(chunk)
            else:
                self._fs.put_file(str(path), self._path)

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
        key = self._path.rstrip("/").rsplit("/", 1)[-1]
        with translated(self.url):
            if self.is_local:
                status = stat_file(self.local_path)
                return None if status is None else _local_info(key, status)
            info = self._info()
            return _object_info(info, key) if info["type"] == "file" else None

    def list_objects(self) -> Iterator[ObjectInfo]:
        """Every object below this prefix, in no particular order; nothing where there is nothing.

        Markers of empty folders (keys that end in a slash, without bytes) are left out, as S3's console makes them.
        """
        with translated(self.url):
            if self.is_local:
                for key, status in walk_files(self.local_path):
                    yield _local_info(key, status)
                return
            base = f"{self._path.rstrip('/')}/"
            for path, info in self._fs.find(self._path, detail=True).items():
                if not path.startswith(base):
                    raise StorageNotFoundError(f"{self.url} lists {path!r}, outside it: check it for doubled slashes.")
                if not _is_folder_marker(path, info["size"]):
                    yield _object_info(info, path[len(base) :])

    def first_object(self) -> ObjectInfo | None:
        """Some object below this prefix, found without listing all of them; None where there is none."""
        if not self._is_s3:
            return next(self.list_objects(), None)
        bucket, key, _ = self._fs.split_path(self._path)
        prefix = f"{key}/" if key else ""
        with translated(self.url):
            page = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=100)
        for found in page.get("Contents", []):
            if not _is_folder_marker(found["Key"], found["Size"]):
                return _object_info({**found, "size": found["Size"]}, found["Key"][len(prefix) :])
        return None

    def check_readable(self) -> None:
        """Prove that the object here may be read, without reading it."""
        with translated(self.url):
            if self.is_local:
                self.local_path.open("rb").close()
            else:
                self._info()

    def list_names(self) -> list[str]:
        """Names directly below this prefix, sorted; empty where there is nothing."""
        with translated(self.url):
            try:
                paths = self._fs.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

    def _info(self) -> dict[str, Any]:
        try:
            return dict(self._fs.info(self._path))
        except PermissionError:
            if self._is_s3:
                self._raise_reason()
            raise

    def _raise_reason(self) -> None:
        """Ask again in a way that has a body: the answer to S3's HEAD says "403", never why."""
        bucket, key, _ = self._fs.split_path(self._path)
        if key:
            self._fs.call_s3("get_object", Bucket=bucket, Key=key, Range="bytes=0-0")
        else:
            self._fs.call_s3("list_objects_v2", Bucket=bucket, MaxKeys=1)

    def _require_version(self, info: ObjectInfo) -> None:
        try:
            found = self.find_object()
        except StorageNotFoundError as error:
            raise changed(self.url) from error
        if found is None or found.version != info.version:
            raise changed(self.url)

    def _s3_blocks(self, info: ObjectInfo) -> Iterator[bytes]:
        if info.num_bytes <= BLOCK_BYTES:
            yield self._s3_block(info, info.num_bytes)
            return
        for start in range(0, info.num_bytes, BLOCK_BYTES):
            end = min(start + BLOCK_BYTES, info.num_bytes)
            yield self._s3_block(info, end - start, Range=f"bytes={start}-{end - 1}")

    def _s3_block(self, info: ObjectInfo, num_bytes: int, **byte_range: str) -> bytes:
        """One ranged read, proven to be of the listed version; a lost connection is tried again."""
        for attempt in range(1, _BLOCK_ATTEMPTS + 1):
            try:
                with translated(self.url):
                    data, etag = sync(self._fs.loop, self._get_object, info.etag, byte_range)
                if _bare(etag) != info.version:  # servers that ignore If-Match: rclone's, for one
                    raise changed(self.url)
                if len(data) != num_bytes:
                    raise _cut_short(self.url, num_bytes, len(data))
                return bytes(data)
            except StorageUnavailableError:
                if attempt == _BLOCK_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _get_object(self, etag: str, byte_range: Mapping[str, str]) -> tuple[bytes, str]:
        bucket, key, _ = self._fs.split_path(self._path)
        answer = await self._fs._call_s3("get_object", Bucket=bucket, Key=key, IfMatch=etag, **byte_range)
        async with answer["Body"] as body:
            return await body.read(), answer["ETag"]

    @contextmanager
    def _local_scratch(self) -> Iterator[Path]:
        """A new file beside the target; fsynced and renamed onto it when the block ends well."""
        target = Path(self._path)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name[:60]}.{uuid.uuid4().hex}.tmp")
        try:
            yield scratch
            with scratch.open("rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)

    def _create_local(self, data: bytes) -> bool:
        target = Path(self._path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".create.") as scratch:
            scratch.write(data)
            scratch.flush()
            os.fsync(scratch.fileno())
            try:
                os.link(scratch.name, target)  # fails where the target exists: the one atomic "create if absent"
            except FileExistsError:
                return False
        return True


def _object_info(info: Mapping[str, Any], key: str) -> ObjectInfo:
    etag = info.get("ETag") or info.get("etag")
    version = _bare(str(etag)) if etag else "-".join(_stamps(info))
    return ObjectInfo(key, int(info["size"]), version, f'"{version}"' if etag else None)


def _local_info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, file_version(status))


def _bare(etag: str) -> str:
    return etag.strip('"')


def _stamps(info: Mapping[str, Any]) -> Iterator[str]:
    for name in ("size", "mtime", "created", "LastModified"):
        stamp = info.get(name)
        if isinstance(stamp, datetime):
            stamp = stamp.timestamp()
        if stamp is not None:
            yield str(stamp)


def _is_folder_marker(key: str, num_bytes: int) -> bool:
    return key.endswith("/") and not num_bytes


def _cut_short(url: str, expected: int, got: int) -> StorageUnavailableError:
    return StorageUnavailableError(f"{url}: {expected:,} bytes were expected and {got:,} came; this is retried.")


def _s3_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options under which a dead endpoint is noticed, and a listing is never one remembered from before."""
    client = {**_S3_CLIENT, **options.get("config_kwargs", {})}
    return {"use_listings_cache": False, **options, "config_kwargs": client}


_credentials_seen = ""


def _forget_stale_credentials() -> None:
    """Drop fsspec's remembered clients when the environment's AWS settings are no longer those they were made with."""
    global _credentials_seen
    settings = sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    seen = hashlib.sha256(repr(settings).encode()).hexdigest()
    if seen != _credentials_seen:
        with translated("s3://"):
            fsspec.get_filesystem_class("s3").clear_instance_cache()
        _credentials_seen = seen


def unknown_scheme(url: str) -> str:
    """The sentence for a URL whose scheme nobody implements."""
    scheme = url.split("://", 1)[0]
    return f"datastore URL {url!r}: unknown scheme {scheme!r}; use for example s3://bucket/prefix or file:///path"
