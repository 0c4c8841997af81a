"""What a server can answer in place of a page of a listing: never a smaller dataset, never an error of somebody else's.

A listing of all objects here has several pages (``fault_server.PAGE``).
"""

import re

import pytest
from aiohttp import web

from tests.integration.fault_server import PAGE, _error
from tests.integration.staging_faults.objects import assert_right, content, put_small_objects, reference
from trainyard.tasks.errors import ObjectChangedError, PipelineError, StorageUnavailableError
from trainyard.tasks.staging.access import locate
from trainyard.tasks.staging.dataset import stage_references
from trainyard.tasks.staging.listing import list_reference

NUM_OBJECTS = 2 * PAGE + 10
ODD_PAGES = {
    "an error": lambda page: _error(500, "InternalError"),
    "nothing": lambda page: web.Response(),
    "no content": lambda page: web.Response(status=204),
    "a web page": lambda page: web.Response(text="<html><p>Back soon<br></html>", content_type="text/html"),
    "a web page that is XML": lambda page: web.Response(text="<html><p>Back soon</p></html>"),
    "no end told": lambda page: re.sub("<IsTruncated>.*</IsTruncated>", "", page),
    "objects missing": lambda page: page.replace("<Contents>", "<Gone>", 1).replace("</Contents>", "</Gone>", 1),
    "an object without a size": lambda page: re.sub("<Size>.*?</Size>", "", page, count=1),
    "an object without a key": lambda page: re.sub("<Key>.*?</Key>", "", page, count=1),
    "an object without a version": lambda page: re.sub("<ETag>.*?</ETag>", "", page, count=1),
    "an object with an empty version": lambda page: re.sub("<ETag>.*?</ETag>", "<ETag/>", page, count=1),
    "no such size": lambda page: re.sub("<Size>.*?</Size>", "<Size>many</Size>", page, count=1),
    "no such time": lambda page: re.sub("Modified>.*?</", "Modified>yesterday</", page, count=1),
    "a page cut short": lambda page: page[: len(page) // 2],
}


@pytest.fixture
def odd_page(server):
    def strike(nth, make):
        server.on_page = lambda n, page: make(page) if n == nth else page

    return strike


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("what", ODD_PAGES)
def test_a_page_that_is_no_answer_is_never_a_smaller_dataset(server, bucket_name, context, odd_page, what, nth):
    put_small_objects(server, bucket_name, NUM_OBJECTS)
    odd_page(nth, ODD_PAGES[what])
    with pytest.raises(StorageUnavailableError, match=f"s3://{bucket_name}/train"):
        list(locate(reference(server, bucket_name)).list_objects())
    with pytest.raises(StorageUnavailableError if nth > 1 else PipelineError, match=f"s3://{bucket_name}/train"):
        stage_references([reference(server, bucket_name)], context)
    assert not (context.home / "datasets").exists()


@pytest.mark.parametrize("what", ["an object without a size", "no end told", "an object without a version"])
def test_the_look_at_the_first_object_wants_an_answer_too(server, bucket_name, odd_page, what):
    put_small_objects(server, bucket_name, 3)
    odd_page(1, ODD_PAGES[what])
    with pytest.raises(StorageUnavailableError, match=f"s3://{bucket_name}/train"):
        locate(reference(server, bucket_name)).first_object()


def test_a_listing_that_goes_in_circles_is_an_error(server, bucket_name, odd_page):
    put_small_objects(server, bucket_name, NUM_OBJECTS)
    [first] = [key for key in sorted(server.buckets[bucket_name])[PAGE - 1 : PAGE]]
    again = f"<IsTruncated>true</IsTruncated><NextContinuationToken>2:{first}</NextContinuationToken>"
    odd_page(2, lambda page: re.sub("<IsTruncated>.*</NextContinuationToken>", again, page).replace("KeyCount", "X"))
    objects = locate(reference(server, bucket_name)).list_objects()
    with pytest.raises(StorageUnavailableError, match="where the listing was before"):
        for _ in range(10 * NUM_OBJECTS):
            next(objects)


def repeat_first(page, **changes):
    """A page that begins with the last object of the page before, as ``train/00/00000.txt`` here."""
    size, etag = changes.get("size", len(content(0))), changes["etag"]
    twin = (
        f"<Contents><Key>train/00/00000.txt</Key><Size>{size}</Size><ETag>{etag.strip()}</ETag>"
        "<LastModified>2024-05-17T12:00:00.000Z</LastModified></Contents>"
    )
    counted = re.sub(r"<KeyCount>(\d+)<", lambda found: f"<KeyCount>{int(found[1]) + 1}<", page)
    return counted.replace("<Contents>", f"{twin}<Contents>", 1)


def test_an_object_on_two_pages_is_one_object(server, bucket_name, context, odd_page):
    put_small_objects(server, bucket_name, NUM_OBJECTS)
    etag = server.buckets[bucket_name]["train/00/00000.txt"].etag
    odd_page(2, lambda page: repeat_first(page, etag=etag))
    assert len(list_reference(reference(server, bucket_name)).objects) == NUM_OBJECTS
    assert len(list_reference(reference(server, bucket_name, "train/*/*.txt")).objects) == NUM_OBJECTS
    assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))


def test_an_object_on_two_pages_in_two_versions_has_changed(server, bucket_name, odd_page):
    put_small_objects(server, bucket_name, NUM_OBJECTS)
    odd_page(2, lambda page: repeat_first(page, etag='"another"'))
    with pytest.raises(ObjectChangedError, match=r"train/00/00000\.txt"):
        list_reference(reference(server, bucket_name))


def test_an_ordinary_staging_lists_several_pages(server, bucket_name, context):
    put_small_objects(server, bucket_name)
    pages = []
    server.on_page = lambda nth, page: pages.append(nth) or page
    assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))
    assert max(pages) >= 3
