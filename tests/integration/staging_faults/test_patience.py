"""How long a staging waits for a server that says nothing, and how soon it ends where nobody waits for it any more."""

import os
import signal
import threading

import pytest

from tests.integration.fault_server import made_up
from tests.integration.staging_faults.objects import (
    assert_nothing_looks_whole,
    assert_right_without_faults,
    put_small_objects,
    reference,
)
from trainyard.tasks.artifacts import s3_objects
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.errors import StorageAccessError, StorageUnavailableError
from trainyard.tasks.staging.dataset import stage_references

READ_TIMEOUT_S = 2  # as conftest.py sets it
VICTIM = "train/07/00007.txt"


@pytest.mark.parametrize("kind", ["silent", "stalled"])
@pytest.mark.parametrize("size", ["small", "large", "large in one stream"])
def test_ctrl_c_waits_for_one_time_out_at_most(server, bucket_name, context, kind, size):
    server.range_status = 200 if "stream" in size else 206
    put_small_objects(server, bucket_name, 20)
    if size != "small":
        server.buckets[bucket_name][VICTIM] = made_up(3 * BLOCK_BYTES)
    first = 1 if size == "small" else 3
    server.add_fault(kind, lambda key, nth: key == VICTIM and nth >= first)
    asked_before = []

    def press():
        asked_before.append(server.reads.count(VICTIM))
        os.kill(os.getpid(), signal.SIGINT)

    key_press = threading.Timer(0.3, press)
    server.on_read = lambda key, nth: key_press.start() if key == VICTIM and nth == first else None
    with pytest.raises(KeyboardInterrupt):
        stage_references([reference(server, bucket_name)], context)
    assert server.reads.count(VICTIM) <= asked_before[0] + 1, "nothing is asked for again that nobody waits for"
    server.on_read = lambda key, nth: None
    assert_right_without_faults(server, bucket_name, context)


@pytest.mark.parametrize("range_status", [206, 200])
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_ctrl_c_does_not_wait_for_blocks_of_a_slow_server(server, bucket_name, context, num_blocks, range_status):
    server.range_status = range_status
    objects = {f"train/{n}": made_up(num_blocks * BLOCK_BYTES, n) for n in range(4)}
    server.buckets[bucket_name] = objects
    server.add_fault("slow")
    key_press = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    server.on_read = lambda key, nth: None if key_press.ident else key_press.start()
    sent_before = server.sent_bytes
    with pytest.raises(KeyboardInterrupt):
        stage_references([reference(server, bucket_name)], context)
    assert server.sent_bytes - sent_before < 0.8 * 4 * num_blocks * BLOCK_BYTES
    assert_nothing_looks_whole(context)


def test_an_error_does_not_wait_for_an_object_that_stalls(server, bucket_name, context):
    put_small_objects(server, bucket_name, 20)
    server.add_fault("silent", lambda key, nth: key == VICTIM)
    server.add_fault("403", lambda key, nth: key == "train/09/00009.txt")
    with pytest.raises(StorageAccessError):
        stage_references([reference(server, bucket_name)], context)
    assert server.reads.count(VICTIM) <= 2


@pytest.mark.parametrize("kind", ["silent", "stalled"])
def test_an_object_that_stalls_for_ever_is_given_up_after_a_few_time_outs(
    server, bucket_name, context, transport, monkeypatch, kind
):
    monkeypatch.setattr(s3_objects, "_BLOCK_PATIENCE_S", 1.3 * READ_TIMEOUT_S)
    put_small_objects(server, bucket_name, 20)
    server.add_fault(kind, lambda key, nth: key == VICTIM)
    with pytest.raises(StorageUnavailableError, match=VICTIM):
        stage_references([reference(server, bucket_name)], context)
    assert server.reads.count(VICTIM) <= (3 if transport == "obstore" else 2), "each waits for one time-out"
