"""Listings are read by our own parser, where they are as expected: it must say what botocore's says."""

import uuid

import pytest
from botocore import handlers

from trainyard.tasks.artifacts import s3_listing
from trainyard.tasks.artifacts.objects import ObjectInfo
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

    def read():
        location = locate(Datastore(url=f"s3://{bucket.name}", endpoint_url=s3_server.endpoint_url).as_mount())
        return sorted(location.list_objects(), key=lambda info: info.key)

    return read


def test_both_parsers_say_the_same_of_odd_names(listed, monkeypatch):
    ours = listed()
    assert [info.key for info in ours] == sorted([*ODD_NAMES, "empty"])
    taken = []
    monkeypatch.setattr(s3_listing, "_read", lambda element: taken.append(element) or int("no number"))
    assert listed() == ours
    assert taken  # it was asked, and what it could not read was left to botocore


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
    s3_listing._take_objects(response, added)
    return response["body"].decode(), added.get("Contents")


@pytest.mark.parametrize("namespace", ["", NAMESPACE])
def test_objects_are_taken_and_the_rest_is_left(namespace):
    objects = OBJECT.format(key="a") + OBJECT.format(key="b&amp;c")
    body, taken = take(f"<ListBucketResult {namespace}>{objects}<IsTruncated>true</IsTruncated></ListBucketResult>")
    infos = [ObjectInfo.from_listing(each["Key"], each) for each in taken]
    assert [(info.key, info.num_bytes, info.etag) for info in infos] == [("a", 3, '"e"'), ("b&c", 3, '"e"')]
    assert infos[0].modified_s == 1795386900.123
    assert "Contents" not in body
    assert "IsTruncated" in body


UNEXPECTED = {
    "an error": "<Error><Code>InternalError</Code></Error>",
    "cut short": "<ListBucketResult><Contents>",
    "no size": "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
    "odd size": f"<ListBucketResult>{OBJECT.format(key='a').replace('>3<', '>x<')}</ListBucketResult>",
    "odd time": f"<ListBucketResult>{OBJECT.format(key='a').replace('2026-', 'MMXXVI-')}</ListBucketResult>",
    "time of no zone": f"<ListBucketResult>{OBJECT.format(key='a').replace('Z<', '<')}</ListBucketResult>",
}


@pytest.mark.parametrize("xml", UNEXPECTED.values(), ids=UNEXPECTED)
def test_what_is_not_as_expected_is_left_to_botocore_whole(xml):
    assert take(xml) == (xml, None)


def test_errors_are_left_to_botocore():
    xml = f"<ListBucketResult>{OBJECT.format(key='a')}</ListBucketResult>"
    assert take(xml, status=500) == (xml, None)
