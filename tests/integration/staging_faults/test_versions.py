"""Only the listed version is read, and what is overwritten meanwhile is an error."""

import pytest

from tests.integration.fault_server import made_up, stored
from tests.integration.staging_faults.objects import (
    RANGE_STATUSES,
    assert_nothing_looks_whole,
    assert_right,
    put_small_objects,
    reference,
)
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.errors import ObjectChangedError
from trainyard.tasks.staging.dataset import stage_references


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_every_read_asks_for_the_listed_version(server, bucket_name, context, range_status):
    server.range_status = range_status
    put_small_objects(server, bucket_name, 20)
    server.buckets[bucket_name]["train/big.bin"] = made_up(3 * BLOCK_BYTES + 17)
    stage_references([reference(server, bucket_name)], context)
    asked = list(zip(server.reads, server.read_conditions, strict=True))
    assert len(asked) >= 20 + 3
    assert {key: etag for key, etag in asked} == {k: found.etag for k, found in server.buckets[bucket_name].items()}
    assert all(etag == server.buckets[bucket_name][key].etag for key, etag in asked)


@pytest.mark.parametrize("enforce_if_match", [True, False], ids=["server refuses", "server ignores If-Match"])
@pytest.mark.parametrize("where", ["small objects", "large object", "large object in one stream"])
def test_overwritten_midway_is_an_error_and_the_next_attempt_is_right(
    server, bucket_name, context, enforce_if_match, where
):
    server.enforce_if_match = enforce_if_match
    server.range_status = 200 if "stream" in where else 206
    if where == "small objects":
        put_small_objects(server, bucket_name)
        prefix, victim, nth = "train/", "train/07/00207.txt", 1
    else:
        server.buckets[bucket_name] = {"big.bin": made_up(6 * BLOCK_BYTES)}
        prefix, victim, nth = "", "big.bin", 3 if "stream" in where else 4

    def overwrite(key, n):
        if key == victim and n == nth:
            old = server.buckets[bucket_name][key]
            new = made_up(old.num_bytes, seed=7) if prefix == "" else stored(bytes(old.num_bytes))
            server.buckets[bucket_name][key] = new

    server.on_read = overwrite
    with pytest.raises(ObjectChangedError, match=victim):
        stage_references([reference(server, bucket_name, prefix)], context)
    assert_nothing_looks_whole(context)
    product = stage_references([reference(server, bucket_name, prefix)], context)
    assert_right(server, bucket_name, context, product, prefix)


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_another_version_that_is_gone_again_at_the_end_leaves_no_byte(server, bucket_name, context, range_status):
    """As when somebody uploads the wrong file, and the right one again: the last look finds the listed version."""
    server.enforce_if_match, server.range_status = False, range_status
    right, wrong = made_up(6 * BLOCK_BYTES), made_up(6 * BLOCK_BYTES, seed=7)
    server.buckets[bucket_name] = bucket = {"big.bin": right}
    read_wrong = wrong.read

    def read_and_put_back(start, end):
        bucket["big.bin"] = right
        return read_wrong(start, end)

    wrong.read = read_and_put_back
    server.on_read = lambda key, nth: bucket.update({"big.bin": wrong} if nth == 3 else {})
    for _ in range(2):
        try:
            product = stage_references([reference(server, bucket_name, "")], context)
            break
        except ObjectChangedError:
            assert_nothing_looks_whole(context)
    assert bucket["big.bin"] is right
    assert_right(server, bucket_name, context, product, prefix="")
