"""Listings of S3 without the cost of botocore's parser, which spends a tenth of a millisecond on each object.

botocore still sends, signs and retries the request, and reads all of the answer but its objects: those are taken out
of it by botocore's own hook for parts of an answer (``before-parse``), and read here while the server is at the next
page. What is not as expected is left to botocore, whole.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from datetime import datetime
from io import BytesIO
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

# Not "s3.ListObjectsV2": botocore's own handlers of "s3.*" would parse the answer, all of it, before this one.
_EVENT = "before-parse.*.ListObjectsV2"
_OBJECTS = "TrainyardObjects"
"""Where an answer as botocore gives it has the XML of its objects."""
_BEGIN, _END = b"<Contents>", b"</Contents>"
_NEXT = re.compile(rb"</Contents>\s*<Contents>")
_OTHER_ENCODING = re.compile(rb"""<\?xml[^>]*encoding=["'](?!utf-8["'])""", re.IGNORECASE)
_is_ours: ContextVar[bool] = ContextVar("_is_ours", default=False)
_READ = ("Key", "Size", "ETag", "LastModified")


def list_pages(fs: Any, path: str) -> Iterator[Sequence[Mapping[str, Any]]]:
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
    asked = _ask(fs, query)
    try:
        while True:
            page = asked.result()
            token = page["NextContinuationToken"] if page.get("IsTruncated") else None
            if token:
                asked = _ask(fs, {**query, "ContinuationToken": token})
            yield _entries(fs, page)
            if not token:
                return
    finally:
        asked.cancel()


def _ask(fs: Any, query: Mapping[str, str]) -> "Future[Mapping[str, Any]]":
    async def ask() -> Mapping[str, Any]:
        _is_ours.set(True)  # for this request: others of the same client get what botocore gives
        answer: Mapping[str, Any] = await fs._call_s3("list_objects_v2", **query)
        return answer

    return asyncio.run_coroutine_threadsafe(ask(), fs.loop)


def _take_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Move the XML of an answer's objects to what botocore adds to the parsed answer."""
    if not _is_ours.get() or response_dict["status_code"] >= 300:
        return
    body: bytes = response_dict["body"]
    # Without comments, CDATA and entities of its own, what looks like a tag is a tag.
    if b"<!" in body or _OTHER_ENCODING.match(body):
        return
    begin, end = body.find(_BEGIN), body.rfind(_END) + len(_END)
    objects = body[begin:end]
    if begin < 0 or objects.count(_BEGIN) != len(_NEXT.findall(objects)) + 1:
        return
    response_dict["body"] = body[:begin] + body[end:]
    customized_response_dict[_OBJECTS] = objects


def _entries(fs: Any, page: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    if _OBJECTS not in page:
        entries: list[Mapping[str, Any]] = page.get("Contents", [])
        return entries
    try:
        entries = [_read(element) for element in _elements(page[_OBJECTS])]
    except (ElementTree.ParseError, TypeError, ValueError):
        entries = _parse(fs, page[_OBJECTS])
    if page.get("EncodingType") == "url":  # as botocore asks for, and decodes in what it has parsed itself
        return [{**entry, "Key": unquote_plus(entry["Key"])} for entry in entries]
    return entries


def _elements(objects: bytes) -> Iterator[ElementTree.Element]:
    """Each object, which is emptied then: thousands that stay would set off the garbage collector."""
    for _, element in ElementTree.iterparse(BytesIO(b"<All>%b</All>" % objects)):
        if element.tag == "Contents":
            yield element
            element.clear()


def _read(element: ElementTree.Element) -> dict[str, Any]:
    """One object; raises ``TypeError`` or ``ValueError`` where something is missing or no such value."""
    key, num_bytes, etag, modified = (element.findtext(name) for name in _READ)
    if key is None or num_bytes is None or etag is None or modified is None:
        raise TypeError(key)
    moment = datetime.fromisoformat(f"{modified[:-1]}+00:00" if modified.endswith("Z") else modified)
    if moment.tzinfo is None:
        raise ValueError(modified)
    return {"Key": key, "Size": int(num_bytes), "ETag": etag, "LastModified": moment}


def _parse(fs: Any, objects: bytes) -> list[Mapping[str, Any]]:
    """Objects as botocore reads them."""
    from botocore.parsers import create_parser

    shape = fs.s3.meta.service_model.operation_model("ListObjectsV2").output_shape
    answer = {"status_code": 200, "headers": {}, "body": b"<ListBucketResult>%b</ListBucketResult>" % objects}
    entries: list[Mapping[str, Any]] = create_parser("rest-xml").parse(answer, shape)["Contents"]
    return entries
