"""One listed object: its key, its size, and what changes when it changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One listed object."""

    key: str
    """Path relative to the listed location, with forward slashes."""

    num_bytes: int
    """Size in bytes."""

    version: str
    """What changes when the object changes: its ETag, or for local files inode and times. Empty where a listing of
    its filesystem does not tell versions apart."""

    etag: str | None = None
    """The server's own validator in quotes (RFC 9110, section 8.8.3), where it gives one."""

    modified_s: float = 0.0
    """When it was last written, in seconds since 1970; 0 where a listing does not say."""

    @classmethod
    def from_s3(cls, key: str, entry: Mapping[str, Any]) -> "ObjectInfo":
        """The object of one entry of a listing of S3, which tells all of this; thousands come at once."""
        etag = bare_etag(entry["ETag"])
        return cls(key, entry["Size"], etag, f'"{etag}"', entry["LastModified"].timestamp())

    @classmethod
    def from_listing(cls, key: str, info: Mapping[str, Any]) -> "ObjectInfo":
        """The object of one entry of an fsspec listing, or of an answer of S3."""
        etag = bare_etag(str(info.get("ETag") or info.get("etag") or ""))
        num_bytes = next(int(info[name]) for name in ("Size", "size", "ContentLength") if name in info)
        version = etag or "-".join(_stamps(info))
        return cls(key, num_bytes, version, f'"{etag}"' if etag else None, _modified_s(info))


def bare_etag(etag: str) -> str:
    """An ETag without its quotes: listings and headers differ in them.

    And without the ``W/`` of a weak one: a proxy that may encode an answer (nginx) makes the server's strong tag weak
    on its way. As long as the bytes came as they were, which their number tells, it is that version.
    """
    return etag.removeprefix("W/").strip('"')


def is_folder_marker(key: str, num_bytes: int) -> bool:
    """Whether an object only stands for a folder, as S3's console makes them: a last slash, and no bytes."""
    return key.endswith("/") and not num_bytes


def _modified_s(info: Mapping[str, Any]) -> float:
    stamps = (info.get(name) for name in ("LastModified", "mtime", "last_modified", "modified", "created"))
    return next((stamp.timestamp() for stamp in stamps if isinstance(stamp, datetime)), 0.0)


def _stamps(info: Mapping[str, Any]) -> Iterator[str]:
    for name in ("mtime", "created", "LastModified", "last_modified", "updated", "modified", "date_time", "CRC"):
        stamp = info.get(name)
        if stamp is not None:
            yield str(stamp.timestamp() if isinstance(stamp, datetime) else stamp)
