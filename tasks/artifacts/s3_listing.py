"""Listings of S3 without the cost of botocore's parser, which spends a tenth of a millisecond on each object.

botocore still sends, signs and retries the request, and reads all of the answer but its objects: those are taken out
of it by botocore's own hook for parts of an answer (``before-parse``), and read here while the server is at the next
page. What is not as expected is left to botocore, whole. Where an answer is broken within an object, botocore does not
ask again by itself; it is an error as before.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from trainyard.tasks.artifacts.storage_errors import odd_answer

# Not "s3.ListObjectsV2": botocore's own handlers of "s3.*" would parse the answer, all of it, before this one.
_EVENT = "before-parse.*.ListObjectsV2"
_TAKEN = "TrainyardObjects"
"""Where botocore's answer has the XML of its objects: the whole body, and where in it they begin and end."""
_BEGIN, _END = b"<Contents>", b"</Contents>"
_NEXT = re.compile(rb"</Contents>\s*<Contents>")
_ODD = re.compile(rb"<[^<>]*Contents")
"""A tag that may be one of an object, beside those that are expected."""
_is_ours: ContextVar[bool] = ContextVar("_is_ours", default=False)
_READ = ("Key", "Size", "ETag", "LastModified")


def list_pages(fs: Any, path: str) -> Iterator[Sequence[Mapping[str, Any]]]:
    """What is below a prefix, a page of at most 1,000 entries at a time.

    Args:
        fs: s3fs's filesystem.
        path: ``bucket/prefix``.

    Returns:
        Entries with ``Key``, ``Size``, ``ETag`` and ``LastModified``.

    Raises:
        StorageUnavailableError: A page is not what S3 answers with. Taken for the last one, it would make a smaller
            dataset that looks whole.
    """
    bucket, key, _ = fs.split_path(path)
    query = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
    fs.s3.meta.events.register(_EVENT, _take_objects, unique_id="trainyard-listing")
    asked = _ask(fs, query)
    tokens: set[str] = set()
    try:
        while True:
            page = checked_page(asked.result(), path)
            is_last = not page["IsTruncated"]
            if not is_last:
                asked = _ask(fs, {**query, "ContinuationToken": _next_token(page, path, tokens)})
            entries = _entries(fs, page, path)
            if page.get("KeyCount", len(entries)) != len(entries):
                raise odd_answer(f"s3://{path}", f"with {len(entries):,} objects on a page of {page['KeyCount']:,}")
            yield entries
            if is_last:
                return
    finally:
        asked.cancel()


def checked_page(page: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """A page that says whether it is the last one, as every page of S3 does and no other answer."""
    if "IsTruncated" not in page:
        raise odd_answer(f"s3://{path}", "with a page that does not say whether more follow")
    return page


def checked_entry(entry: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """An entry with all that a listing must tell of an object."""
    missing = [name for name in _READ if entry.get(name) in (None, "", '""')]
    if missing:
        raise odd_answer(
            f"s3://{path}", f"with an object ({entry.get('Key')!r}) that has no {' and no '.join(missing)}"
        )
    return entry


def _next_token(page: Mapping[str, Any], path: str, tokens: set[str]) -> str:
    """How to ask for the next page: never twice in the same way, for that would go on for ever."""
    token = str(page.get("NextContinuationToken") or "")
    if not token:
        raise odd_answer(f"s3://{path}", "with a page that says that more follow, and not how to ask for them")
    if token in tokens:
        raise odd_answer(f"s3://{path}", "with a page that says to go on where the listing was before")
    tokens.add(token)
    return token


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
    # Without comments, CDATA, instructions and entities of its own, what looks like a tag is a tag.
    if b"<!" in body or body.find(b"<?", 5) > 0:
        return
    begin, end = body.find(_BEGIN), body.rfind(_END) + len(_END)
    if not 0 < begin < end:
        return
    objects, rest = body[begin:end], body[:begin] + body[end:]
    num_objects = len(_NEXT.findall(objects)) + 1
    if objects.count(_BEGIN) != num_objects or objects.count(_END) != num_objects or _ODD.search(rest):
        return
    response_dict["body"] = rest
    customized_response_dict[_TAKEN] = body, begin, end


def _entries(fs: Any, page: Mapping[str, Any], path: str) -> Sequence[Mapping[str, Any]]:
    """The objects of a page, each with all that a listing must tell."""
    if _TAKEN not in page:
        return [checked_entry(entry, path) for entry in page.get("Contents", [])]
    body, begin, end = page[_TAKEN]
    try:
        objects = ElementTree.fromstring(b"<All>%b</All>" % body[begin:end])
        entries: list[Mapping[str, Any]] = [_read(element) for element in objects]
    except (ElementTree.ParseError, TypeError, ValueError):
        entries = [checked_entry(entry, path) for entry in _parse(fs, body)]
    if page.get("EncodingType") == "url":  # as botocore asks for, and decodes in what it has parsed itself
        return [{**entry, "Key": unquote_plus(entry["Key"])} for entry in entries]
    return entries


def _read(element: ElementTree.Element) -> dict[str, Any]:
    """One object; raises ``TypeError`` or ``ValueError`` where something is missing or no such value."""
    fields = {field.tag: field.text for field in element}
    key, num_bytes, etag, modified = map(fields.get, _READ)
    if not (key and num_bytes and etag and etag != '""' and modified):
        raise TypeError(key)
    moment = datetime.fromisoformat(f"{modified[:-1]}+00:00" if modified.endswith("Z") else modified)
    if moment.tzinfo is None:
        raise ValueError(modified)
    return {"Key": key, "Size": int(num_bytes), "ETag": etag, "LastModified": moment}


def _parse(fs: Any, body: bytes) -> list[Mapping[str, Any]]:
    """The objects of an answer as botocore reads them."""
    from botocore.parsers import create_parser

    shape = fs.s3.meta.service_model.operation_model("ListObjectsV2").output_shape
    answer = create_parser("rest-xml").parse({"status_code": 200, "headers": {}, "body": body}, shape)
    entries: list[Mapping[str, Any]] = answer["Contents"]
    return entries
