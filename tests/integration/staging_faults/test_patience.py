"""How long a staging waits for a server that says nothing, and how soon it ends where nobody waits for it any more."""

import os
import signal
import threading
import time

import pytest

from tests.integration.fault_server import made_up
from tests.integration.staging_faults.objects import (
    assert_nothing_looks_whole,
    assert_right,
    put_small_objects,
    reference,
)
from trainyard.tasks.artifacts import s3_objects
from trainyard.tasks.artifacts.s3_objects import BLOCK_BYTES
from trainyard.tasks.errors import StorageAccessError, StorageUnavailableError
from trainyard.tasks.staging.dataset import stage_references

READ_TIMEOUT_S = 2  # as conftest.py sets it
SLACK_S = 2.5
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
    pressed_at = []

    def press():
        pressed_at.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    key_press = threading.Timer(0.3, press)
    server.on_read = lambda key, nth: key_press.start() if key == VICTIM and nth == first else None
    with pytest.raises(KeyboardInterrupt):
        stage_references([reference(server, bucket_name)], context)
    assert time.monotonic() - pressed_at[0] < READ_TIMEOUT_S + SLACK_S
    assert_nothing_looks_whole(context)
    server.faults.clear()
    server.on_read = lambda key, nth: None
    assert_right(server, bucket_name, context, stage_references([reference(server, bucket_name)], context))


def test_an_error_does_not_wait_for_an_object_that_stalls(server, bucket_name, context):
    put_small_objects(server, bucket_name, 20)
    server.add_fault("silent", lambda key, nth: key == VICTIM)
    server.add_fault("403", lambda key, nth: key == "train/09/00009.txt")
    began = time.monotonic()
    with pytest.raises(StorageAccessError):
        stage_references([reference(server, bucket_name)], context)
    assert time.monotonic() - began < READ_TIMEOUT_S + SLACK_S


@pytest.mark.parametrize("kind", ["silent", "stalled"])
def test_an_object_that_stalls_for_ever_is_given_up_after_a_few_time_outs(
    server, bucket_name, context, transport, monkeypatch, kind
):
    monkeypatch.setattr(s3_objects, "_BLOCK_PATIENCE_S", 1.3 * READ_TIMEOUT_S)
    put_small_objects(server, bucket_name, 20)
    server.add_fault(kind, lambda key, nth: key == VICTIM)
    began = time.monotonic()
    with pytest.raises(StorageUnavailableError, match=VICTIM):
        stage_references([reference(server, bucket_name)], context)
    num_time_outs = 3 if transport == "obstore" else 2
    assert time.monotonic() - began < num_time_outs * READ_TIMEOUT_S + SLACK_S
