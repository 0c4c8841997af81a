import pytest
from pydantic import ValidationError

from trainyard import Datastore
from trainyard.tasks.specs.urls import joined, scheme_of, storage_url

JOINED = {
    "s3://b": "s3://b/k/x",
    "s3://b/dir/": "s3://b/dir/k/x",
    "/data": "/data/k/x",
    "memory://": "memory://k/x",
    "zip://::file:///a.zip": "zip://k/x::file:///a.zip",
    "zip://sub::s3://b/a.zip": "zip://sub/k/x::s3://b/a.zip",
    "zip://sub::/data/a.zip": "zip://sub/k/x::/data/a.zip",
    "simplecache::s3://b/dir": "simplecache::s3://b/dir/k/x",
    "simplecache::zip://sub::s3://b/a.zip": "simplecache::zip://sub/k/x::s3://b/a.zip",
    "s3://b/a::b": "s3://b/a::b/k/x",
    "/data/a::b": "/data/a::b/k/x",
}


@pytest.mark.parametrize(("url", "expected"), JOINED.items(), ids=JOINED)
def test_a_key_goes_to_the_link_of_a_chain_that_has_a_path(url, expected):
    assert joined(url, "k/x") == expected
    assert Datastore(url=url).path("k/x").uri == expected


@pytest.mark.parametrize(
    ("url", "scheme", "last"),
    [
        ("S3://b", "s3", "S3://b"),
        ("/data/a::b", "file", "/data/a::b"),
        ("zip://x::s3://b/x.zip", "zip", "s3://b/x.zip"),
        ("simplecache::zip://x::/a.zip", "simplecache", "/a.zip"),
        ("s3://b/a::b", "s3", "s3://b/a::b"),
    ],
)
def test_the_parts_of_a_url(url, scheme, last):
    assert (scheme_of(url), storage_url(url)) == (scheme, last)


def test_a_scheme_is_lower_case_and_has_two_slashes():
    assert Datastore(url="S3://Bucket/X").url == "s3://Bucket/X"
    for url in ("https:/u:SECRET@h/x", "s3:/K:SECRET@b"):
        with pytest.raises(ValidationError, match="one slash") as caught:
            Datastore(url=url)
        assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("key", ["../x", "a/../../x", "..", "a\0b", "\ud800"])
def test_a_key_stays_in_its_datastore_and_is_text(key):
    with pytest.raises(ValidationError, match="key"):
        Datastore(url="/data").path(key)
    assert Datastore(url="/data").path("a..b/..c").key == "a..b/..c"
