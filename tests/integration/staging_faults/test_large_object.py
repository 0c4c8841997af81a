"""What a network and a server can do to one object that is read in parts."""

import pytest

from tests.integration.fault_server import made_up
from tests.integration.staging_faults.objects import (
    MENDED,
    RANGE_STATUSES,
    REFUSED,
    assert_right,
    assert_right_without_faults,
    reference,
)
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.errors import StorageAccessError, StorageUnavailableError
from trainyard.tasks.staging.dataset import stage_references


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
@pytest.mark.parametrize("kind", MENDED)
def test_faults_that_pass_are_mended_in_a_large_object(server, bucket_name, context, kind, range_status):
    server.range_status = range_status
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    fault = server.add_fault(kind, lambda key, nth: nth in (3, 5))
    product = stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes == 2
    assert_right(server, bucket_name, context, product, prefix="")


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_midway_in_a_large_object_is_permanent_and_names_it(server, bucket_name, context, kind):
    """As when credentials expire, or are withdrawn, while it is read."""
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    sent_before = server.sent_bytes
    fault = server.add_fault(kind, lambda key, nth: nth >= 4)
    with pytest.raises(StorageAccessError, match=f"big.bin.*{REFUSED[kind]}|{REFUSED[kind]}.*big.bin"):
        stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes >= 1
    assert server.sent_bytes - sent_before >= BLOCK_BYTES
    assert_right_without_faults(server, bucket_name, context, prefix="")


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_server_without_proper_ranges_is_read_in_one_stream(server, bucket_name, context, transport, knows_ranges):
    server.range_status = 200
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    if not knows_ranges:
        server.add_fault("range ignored")
    if transport == "s3fs" and not knows_ranges:
        with pytest.raises(StorageUnavailableError, match=r"big\.bin"):
            stage_references([reference(server, bucket_name, "")], context)
        return
    product = stage_references([reference(server, bucket_name, "")], context)
    assert_right(server, bucket_name, context, product, prefix="")
    # A look at how it answers, and all of it; or a look, a short answer and the rest; or blocks.
    assert len(server.reads) == {"obstore": 3 if knows_ranges else 2, "s3fs": 6}[transport]


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_a_first_look_that_fails_costs_no_more_than_time(server, bucket_name, context, range_status):
    server.range_status = range_status
    server.buckets[bucket_name] = {"big.bin": made_up(5 * BLOCK_BYTES + 17)}
    fault = server.add_fault("reset", lambda key, nth: nth == 1)
    product = stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes == 1
    assert_right(server, bucket_name, context, product, prefix="")
