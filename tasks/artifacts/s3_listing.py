"""Listings of S3 without the cost of botocore's parser, which spends a tenth of a millisecond on each object.

botocore still sends, signs and retries the request, and reads all of the answer but its objects: those are taken out
of it and read here, by botocore's own hook for parts of an answer (``before-parse``). What is not as expected is left
to botocore, whole.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

# Not "s3.ListObjectsV2": botocore's own handlers of "s3.*" would parse the answer, all of it, before this one.
_EVENT = "before-parse.*.ListObjectsV2"
_READ = ("Key", "Size", "ETag", "LastModified")


def list_pages(fs: Any, path: str) -> Iterator[list[Mapping[str, Any]]]:
    """What is below a prefix, a page of at most 1,000 entries at a time.

    Args:
        fs: s3fs's filesystem.
        path: ``bucket/prefix``.

    Returns:
        Entries with ``Key``, ``Size``, ``ETag`` and ``LastModified``.
    """
    bucket, key, _ = fs.split_path(path)
    query = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
    fs.s3.meta.events.register(_EVENT, _take_objects, unique_id="trainyard-listing")
    while True:
        page = fs.call_s3("list_objects_v2", **query)
        yield page.get("Contents", [])
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _take_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Move the objects of an answer from its XML to what botocore adds to the parsed answer."""
    if response_dict["status_code"] >= 300:
        return
    try:
        objects, rest = _split(response_dict["body"])
    except (ElementTree.ParseError, KeyError, ValueError):
        return
    if objects:
        response_dict["body"] = rest
        customized_response_dict["Contents"] = objects


def _split(body: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """The objects of an answer, and the answer without them.

    Each object's elements go as soon as they are read: thousands that stay would set off the garbage collector, which
    takes longer than all of this.
    """
    objects, emptied = [], []
    for _, element in ElementTree.iterparse(BytesIO(body)):
        if _tag(element) == "Contents":
            objects.append(_read(element))
            element.clear()
            emptied.append(element)
    root = element  # the last one to end
    for element in emptied:
        root.remove(element)
    return objects, ElementTree.tostring(root)


def _read(element: ElementTree.Element) -> dict[str, Any]:
    """One object; raises ``KeyError`` or ``ValueError`` where something is missing or no such value."""
    text = {_tag(field): field.text or "" for field in element}
    key, num_bytes, etag, modified = (text[name] for name in _READ)
    moment = datetime.fromisoformat(f"{modified[:-1]}+00:00" if modified.endswith("Z") else modified)
    if moment.tzinfo is None:
        raise ValueError(modified)
    return {"Key": key, "Size": int(num_bytes), "ETag": etag, "LastModified": moment}


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
