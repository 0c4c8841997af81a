"""What a server can answer to a read in place of the bytes that were asked for."""

import pytest

from tests.integration.fault_server import made_up, stored
from tests.integration.staging_faults.objects import (
    RANGE_STATUSES,
    assert_nothing_looks_whole,
    assert_right,
    assert_right_without_faults,
    put_small_objects,
    reference,
)
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.errors import (
    InvalidInputError,
    ObjectChangedError,
    PipelineError,
    StorageAccessError,
    StorageUnavailableError,
)
from trainyard.tasks.staging.access import locate
from trainyard.tasks.staging.dataset import stage_references

VICTIM = "train/07/00007.txt"
LARGE = 5 * BLOCK_BYTES + 17
MOST_SENT = 12 << 20
"""More than one block, and what fits into the buffers of some connections."""


def put_large(server, bucket_name):
    server.buckets[bucket_name] = {"big.bin": made_up(LARGE)}


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_other_bytes_than_those_asked_for_are_found_out(server, bucket_name, context, range_status):
    server.range_status = range_status
    put_large(server, bucket_name)
    fault = server.add_fault("other range", lambda key, nth: nth >= 3)
    with pytest.raises(StorageUnavailableError, match=r"big\.bin: asked for bytes \d+-\d+, answered with 'bytes \d+"):
        stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes
    assert_nothing_looks_whole(context)


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_other_bytes_for_once_are_asked_for_again(server, bucket_name, context, range_status):
    server.range_status = range_status
    put_large(server, bucket_name)
    fault = server.add_fault("other range", lambda key, nth: nth == 3)
    product = stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes == 1
    assert_right(server, bucket_name, context, product, prefix="")


def test_an_object_that_has_grown_is_not_read_to_find_that_out(server, bucket_name, context):
    server.enforce_if_match = False
    put_small_objects(server, bucket_name, 20)
    grown = made_up(400 << 20)
    server.on_read = lambda key, nth: server.buckets[bucket_name].update({VICTIM: grown})
    sent_before = server.sent_bytes
    with pytest.raises(ObjectChangedError, match=VICTIM):
        stage_references([reference(server, bucket_name)], context)
    assert server.sent_bytes - sent_before < MOST_SENT


def test_a_server_that_ignores_ranges_does_not_send_all_of_it_for_each_block(server, bucket_name, transport):
    num_bytes = 400 << 20
    server.buckets[bucket_name] = {"big.bin": made_up(num_bytes)}
    server.add_fault("range ignored")
    sent_before = server.sent_bytes
    location = locate(reference(server, bucket_name, "big.bin"))
    blocks = location.read_version(location.find_object())
    if transport == "obstore":  # one stream
        assert sum(len(block) for block in blocks) == num_bytes
        assert server.sent_bytes - sent_before < num_bytes + MOST_SENT
    else:
        with pytest.raises(StorageUnavailableError, match=r"big\.bin: expected 8,388,608 bytes, got 419,430,400"):
            list(blocks)
        assert server.sent_bytes - sent_before < 15 * MOST_SENT  # of five blocks, three times each


@pytest.mark.parametrize("enforce_if_match", [True, False])
def test_an_object_that_has_shrunk_has_changed(server, bucket_name, context, enforce_if_match):
    server.enforce_if_match = enforce_if_match
    put_large(server, bucket_name)
    server.on_read = lambda key, nth: server.buckets[bucket_name].update({} if nth < 3 else {key: stored(b"short")})
    with pytest.raises(ObjectChangedError, match=r"big\.bin"):
        stage_references([reference(server, bucket_name, "")], context)
    product = stage_references([reference(server, bucket_name, "")], context)
    assert_right(server, bucket_name, context, product, prefix="")


ODD = {
    "no etag": (StorageUnavailableError, "without an ETag"),
    "error with 200": (StorageUnavailableError, "without an ETag"),
    "409": (StorageUnavailableError, "retried as the stage"),
    "archived": (StorageAccessError, "archived.*restore it"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_answer_is_an_error_that_names_the_object(server, bucket_name, context, kind):
    error, why = ODD[kind]
    put_small_objects(server, bucket_name, 20)
    server.add_fault(kind, lambda key, nth: key == VICTIM)
    with pytest.raises(error, match=f"{VICTIM}.*{why}"):
        stage_references([reference(server, bucket_name)], context)
    assert_right_without_faults(server, bucket_name, context)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_a_proxy_that_makes_etags_weak_changes_nothing(server, bucket_name, context, large, range_status):
    server.weak_etags, server.range_status = True, range_status
    put_small_objects(server, bucket_name, 20)
    if large:
        server.buckets[bucket_name]["train/big.bin"] = made_up(LARGE)
    assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))
    single = locate(reference(server, bucket_name, VICTIM))
    info = single.find_object()
    assert info.etag == server.buckets[bucket_name][VICTIM].etag
    assert b"".join(single.read_version(info)) == server.buckets[bucket_name][VICTIM].read(0, 1000)


def test_the_servers_own_checksum_is_compared_by_s3fs_alone(server, bucket_name, context, transport):
    """As docs/data.md says of wrong bytes under the right ETag."""
    put_small_objects(server, bucket_name, 20)
    server.add_fault("wrong checksum", lambda key, nth: key == VICTIM)
    if transport == "s3fs":
        with pytest.raises(StorageUnavailableError, match=f"{VICTIM}.*hecksum"):
            stage_references([reference(server, bucket_name)], context)
    else:
        assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))


def test_a_server_that_is_elsewhere_and_says_not_where_is_named(server, bucket_name):
    put_small_objects(server, bucket_name, 20)
    server.moved = True
    with pytest.raises(InvalidInputError, match=f"{VICTIM}.*elsewhere"):
        locate(reference(server, bucket_name, VICTIM)).find_object()


def test_an_object_that_is_elsewhere_is_an_error_of_ours(server, bucket_name, context):
    put_small_objects(server, bucket_name, 20)
    server.add_fault("moved", lambda key, nth: key == VICTIM)
    with pytest.raises(PipelineError, match=VICTIM):
        stage_references([reference(server, bucket_name)], context)
