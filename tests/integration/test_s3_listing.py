"""Listings are read by our own parser, where they are as expected: it must say what botocore's says."""

import re
import uuid
from concurrent.futures import Future

import pytest
from botocore import handlers

from trainyard.tasks.artifacts import s3_listing
from trainyard.tasks.artifacts.objects import ObjectInfo
from trainyard.tasks.errors import PipelineError, StorageUnavailableError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging.access import locate

ODD_NAMES = ["a b.txt", "a+b%20c.txt", "é.txt", "e\u0301.txt", "<&>\"'.txt", "%2e%2e", " leading", "100%", "日本/x.txt"]
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
OBJECT = (
    "<Contents><Key>{key}</Key><LastModified>2026-11-22T22:35:00.123Z</LastModified><ETag>&quot;e&quot;</ETag>"
    "<Size>3</Size><Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>"
)


@pytest.fixture
def listed(s3_server, monkeypatch):
    """List a bucket of objects with odd names."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    for name in ODD_NAMES:
        (bucket / name).parent.mkdir(exist_ok=True)
        (bucket / name).write_text(name)
    (bucket / "empty").write_bytes(b"")

    def location():
        return locate(Datastore(url=f"s3://{bucket.name}", endpoint_url=s3_server.endpoint_url).as_mount())

    def read():
        return sorted(location().list_objects(), key=lambda info: info.key)

    read.location = location
    return read


@pytest.mark.parametrize("reader", ["botocore, object by object", "botocore, the whole answer"])
def test_both_parsers_say_the_same_of_odd_names(listed, monkeypatch, reader):
    ours = listed()
    assert [info.key for info in ours] == sorted([*ODD_NAMES, "empty"])
    asked = []
    if reader == "botocore, object by object":
        monkeypatch.setattr(s3_listing, "_read", lambda element: asked.append(element) or int("no number"))
    else:
        monkeypatch.setattr(s3_listing, "_NEXT", re.compile(b"never there"))
        monkeypatch.setattr(s3_listing, "_read", lambda element: pytest.fail("it was left to botocore"))
    assert listed() == ours
    assert bool(asked) == (reader == "botocore, object by object")


def test_others_of_the_same_client_get_what_botocore_gives(listed):
    location = listed.location()
    assert len(list(location.list_objects())) == len(ODD_NAMES) + 1
    found = location._fs.call_s3("list_objects_v2", Bucket=location._path)["Contents"]
    assert sorted(each["Key"] for each in found) == sorted([*ODD_NAMES, "empty"])
    assert location.first_object().key in [*ODD_NAMES, "empty"]


def test_pages_follow_each_other_to_the_last(listed, monkeypatch):
    ours, ask = listed(), s3_listing._ask
    pages = []

    def few(fs, query):
        pages.append(query)
        return ask(fs, {**query, "MaxKeys": 4})

    monkeypatch.setattr(s3_listing, "_ask", few)
    assert listed() == ours
    assert len(pages) == 3
    assert [("ContinuationToken" in query) for query in pages] == [False, True, True]


def test_botocore_does_not_parse_the_objects_to_find_that_there_is_no_error(listed, monkeypatch):
    looked_at, look = [], handlers._looks_like_special_case_error

    def spy(status, body):
        looked_at.append(body)
        return look(status, body)

    monkeypatch.setattr(handlers, "_looks_like_special_case_error", spy)
    assert len(listed()) == len(ODD_NAMES) + 1
    assert looked_at and not any(b"<Contents>" in body for body in looked_at)


def take(xml, status=200):
    response, added = {"status_code": status, "body": xml.encode()}, {}
    ours = s3_listing._is_ours.set(True)
    s3_listing._take_objects(response, added)
    s3_listing._is_ours.reset(ours)
    return response["body"].decode(), added


@pytest.mark.parametrize("namespace", ["", NAMESPACE])
@pytest.mark.parametrize("between", ["", "\n  "])
@pytest.mark.parametrize("declared", ["", '<?xml version="1.0" encoding="UTF-8"?>'])
def test_objects_are_taken_and_the_rest_is_left(namespace, between, declared):
    objects = OBJECT.format(key="a") + between + OBJECT.format(key="b&amp;c") + between + OBJECT.format(key="d+%2B")
    rest = "<IsTruncated>true</IsTruncated></ListBucketResult>"
    body, added = take(f"{declared}<ListBucketResult {namespace}>{objects}{rest}")
    assert body == f"{declared}<ListBucketResult {namespace}>{rest}"
    entries = s3_listing._entries(None, {**added, "EncodingType": "url"}, "bucket/")
    infos = [ObjectInfo.from_listing(each["Key"], each) for each in entries]
    assert [(info.key, info.num_bytes, info.etag) for info in infos] == [(key, 3, '"e"') for key in ("a", "b&c", "d +")]
    assert infos[0].modified_s == 1795386900.123
    assert s3_listing._entries(None, added, "bucket/")[2]["Key"] == "d+%2B"  # no server that encodes keys


WHOLE = f"<ListBucketResult>{OBJECT.format(key='a')}</ListBucketResult>"
LEFT = {
    "an error": "<Error><Code>InternalError</Code></Error>",
    "no objects": "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>",
    "cut short": "<ListBucketResult><Contents>",
    "another tag first": WHOLE.replace("<Contents>", "<Contents id='1'><Key>b</Key></Contents><Contents>"),
    "another tag between": WHOLE.replace(
        "</Cont", "</Contents><Contents xmlns='x'><Key>b</Key></Contents><Contents></Cont"
    ),
    "another tag last": WHOLE.replace("</ListB", "<Contents><Key>b</Key></Contents ></ListB"),
    "an empty tag": WHOLE.replace("<Contents>", "<Contents/><Contents>"),
    "one within another": WHOLE.replace("<Key>", "<Contents><Key>b</Key></Contents><Key>"),
    "two closed otherwise": WHOLE.replace(
        "<Contents>", "<Contents><Key>b</Key></Contents ><Contents xmlns='x'><Key>c</Key></Contents ><Contents>"
    ),
    "an instruction": WHOLE.replace("<Contents>", "<?x <Contents>").replace("</Contents>", "</Contents> ?>"),
    "something between": WHOLE.replace("</Contents>", "</Contents><KeyCount>2</KeyCount>" + OBJECT.format(key="b")),
    "a comment": WHOLE.replace("<Contents>", "<!-- <Contents> --><Contents>"),
    "a section": WHOLE.replace("<Key>a<", "<Key><![CDATA[</Contents>]]><"),
    "an entity": f'<!DOCTYPE x [<!ENTITY e "f">]>{WHOLE}',
    "another prefix": WHOLE.replace("Contents>", "s3:Contents>"),
}


@pytest.mark.parametrize("xml", LEFT.values(), ids=LEFT)
def test_what_is_not_as_expected_is_left_to_botocore_whole(xml):
    assert take(xml) == (xml, {})


def test_errors_are_left_to_botocore():
    assert take(WHOLE, status=500) == (WHOLE, {})


ODD = {
    "no size": ("<Size>3</Size>", ""),
    "no such size": ("<Size>3</Size>", "<Size>many</Size>"),
    "no version": ("&quot;e&quot;", "&quot;&quot;"),
    "odd time": ("2026-11-22T22:35:00.123Z", "Sun, 22 Nov 2026 22:35:00 GMT"),
    "time of no zone": ("00.123Z", "00.123"),
}


@pytest.mark.parametrize(("known", "odd"), ODD.values(), ids=ODD)
def test_objects_that_are_not_as_expected_are_read_by_botocore(monkeypatch, known, odd):
    entry = {"Size": 3, "ETag": "e", "LastModified": "some time"}
    monkeypatch.setattr(s3_listing, "_parse", lambda fs, body: [{"Key": body, **entry}])
    xml = WHOLE.replace(known, odd)
    _, added = take(xml)
    assert s3_listing._entries(None, added, "bucket/") == [{"Key": xml.encode(), **entry}]


def test_botocore_reads_them_with_what_the_whole_answer_declares(listed):
    xml = WHOLE.replace("<ListBucketResult", "<ListBucketResult xmlns:xsi='x'").replace(
        "<Owner", "<Owner xsi:nil='true'"
    )
    _, added = take(xml)
    [entry] = s3_listing._entries(listed.location()._fs, added, "bucket/")
    assert (entry["Key"], entry["Size"], entry["ETag"]) == ("a", 3, '"e"')


@pytest.mark.parametrize("token", [{}, {"NextContinuationToken": ""}])
def test_a_listing_that_goes_on_but_says_not_where_is_an_error(listed, monkeypatch, token):
    location, call = listed.location(), s3_listing._ask

    def truncated(fs, query):
        answer = Future()
        answer.set_result({**call(fs, query).result(), "IsTruncated": True, **token})
        return answer

    monkeypatch.setattr(s3_listing, "_ask", truncated)
    with pytest.raises(StorageUnavailableError, match="says that more follow"):
        list(location.list_objects())


def test_who_stops_early_leaves_no_request_behind(listed, monkeypatch):
    location, ask, asked = listed.location(), s3_listing._ask, []

    def few(fs, query):
        asked.append(ask(fs, {**query, "MaxKeys": 1}))
        return asked[-1]

    monkeypatch.setattr(s3_listing, "_ask", few)
    objects = location.list_objects()
    next(objects)
    objects.close()
    assert len(asked) == 2 and asked[1].done()


def test_an_error_of_the_page_that_is_asked_for_ahead_comes_after_the_page_before(listed, monkeypatch):
    location, ask, seen = listed.location(), s3_listing._ask, []

    def second_is_refused(fs, query):
        return ask(fs, {**query, "MaxKeys": 1, **({"ContinuationToken": "made up"} if seen else {})})

    monkeypatch.setattr(s3_listing, "_ask", second_is_refused)
    ask_first = s3_listing._ask
    monkeypatch.setattr(s3_listing, "_ask", lambda fs, query: (ask_first(fs, query), seen.append(query))[0])
    objects = location.list_objects()
    assert next(objects).key
    with pytest.raises(PipelineError):
        list(objects)
