"""A large object whose staging was interrupted goes on where it was, and is right whatever happened meanwhile."""

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from tests.integration.fault_server import StoredObject, made_up
from tests.integration.staging_faults.objects import RANGE_STATUSES, assert_right, reference
from trainyard.tasks.artifacts.fast_reads import OVERLAP_BYTES
from trainyard.tasks.errors import StorageUnavailableError
from trainyard.tasks.staging import unfinished
from trainyard.tasks.staging.dataset import stage_references

NUM_BYTES = 200_000_017
NUM_SENT = 150_000_000
"""What the first attempt may get."""
LEAST_NOTED = 64 << 20


def stage(url_reference, context):
    stage_references([url_reference], context)


def notes(context):
    return list((context.home / "objects" / "unfinished").glob("*.json"))


def noted_bytes(context):
    return sum(json.loads(note.read_text())["num_bytes"] for note in notes(context))


@pytest.fixture
def interrupted(server, bucket_name, context):
    """A staging of 200 MB that is killed (``kill -9``) after 64 MiB at least; gives what to stage again."""
    whole, killed = made_up(NUM_BYTES), threading.Event()

    def read(start, end):
        if start >= NUM_SENT:
            killed.wait(60)
        return whole.read(start, end)

    def run():
        server.buckets[bucket_name] = {"big.bin": StoredObject(NUM_BYTES, read, whole.etag)}
        wanted = reference(server, bucket_name, "")
        child = multiprocessing.get_context("spawn").Process(target=stage, args=(wanted, context))
        child.start()
        ends = time.monotonic() + 60
        while noted_bytes(context) < LEAST_NOTED:
            assert child.is_alive() and time.monotonic() < ends
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.join(10)
        killed.set()
        server.reads.clear()
        server.read_ranges.clear()
        server.read_conditions.clear()
        return wanted

    yield run
    killed.set()


def first_bytes_asked(server):
    """Of every read but the look at how the server answers."""
    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0 for asked in server.read_ranges]
    return [start for start, asked in zip(starts, server.read_ranges, strict=True) if asked != "bytes=0-0"]


@pytest.mark.parametrize("range_status", RANGE_STATUSES)
def test_a_killed_staging_of_a_large_object_goes_on_where_it_was(
    server, bucket_name, context, interrupted, range_status
):
    server.range_status = range_status
    wanted = interrupted()
    noted = noted_bytes(context)
    assert LEAST_NOTED <= noted < NUM_BYTES
    reports = []
    product = stage_references([wanted], context, reports.append)
    assert noted - OVERLAP_BYTES <= min(first_bytes_asked(server)) <= noted
    assert (reports[-1].transferred_bytes, reports[-1].missing_bytes) == (NUM_BYTES - noted, NUM_BYTES - noted)
    assert_right(server, bucket_name, context, product, prefix="")
    assert list((context.home / "objects" / "unfinished").iterdir()) == []


@pytest.mark.parametrize("transport", ["obstore"], indirect=True)  # s3fs alone reads no large object from such a server
def test_a_server_without_ranges_sends_all_again_and_what_is_there_is_kept(
    server, bucket_name, context, interrupted, transport
):
    server.range_status = 200
    server.add_fault("range ignored")
    wanted = interrupted()
    noted = noted_bytes(context)
    reports = []
    product = stage_references([wanted], context, reports.append)
    assert (reports[-1].transferred_bytes, reports[-1].missing_bytes) == (NUM_BYTES - noted, NUM_BYTES - noted)
    assert_right(server, bucket_name, context, product, prefix="")


def test_a_version_that_came_meanwhile_begins_anew_and_the_old_one_goes(server, bucket_name, context, interrupted):
    wanted = interrupted()
    server.buckets[bucket_name]["big.bin"] = made_up(NUM_BYTES, seed=7)
    product = stage_references([wanted], context)
    assert min(first_bytes_asked(server)) == 0
    assert_right(server, bucket_name, context, product, prefix="")
    assert list((context.home / "objects" / "unfinished").iterdir()) == []


@pytest.mark.parametrize("harm", ["a byte flipped", "cut short", "a note that is none", "no note"])
def test_what_was_damaged_meanwhile_is_fetched_again(server, bucket_name, context, interrupted, harm):
    wanted = interrupted()
    [note] = notes(context)
    with note.with_suffix("").open("r+b") as stream:
        if harm == "a byte flipped":
            stream.seek(LEAST_NOTED // 2)
            [byte] = stream.read(1)
            stream.seek(LEAST_NOTED // 2)
            stream.write(bytes([byte ^ 1]))
        elif harm == "cut short":
            stream.truncate(LEAST_NOTED // 2)
    if harm == "a note that is none":
        note.write_bytes(b"\0" * 50)
    elif harm == "no note":
        note.unlink()
    product = stage_references([wanted], context)
    assert min(first_bytes_asked(server)) == 0
    assert_right(server, bucket_name, context, product, prefix="")


def test_an_attempt_goes_on_where_the_one_before_it_failed(server, bucket_name, context):
    server.buckets[bucket_name] = {"big.bin": made_up(NUM_BYTES)}
    fault = server.add_fault("503", lambda key, nth: nth > 12)
    with pytest.raises(StorageUnavailableError):
        stage_references([reference(server, bucket_name, "")], context)
    assert fault.num_strikes
    noted = noted_bytes(context)
    assert noted >= 32 << 20
    server.faults.clear()
    server.read_ranges.clear()
    product = stage_references([reference(server, bucket_name, "")], context)
    assert noted - OVERLAP_BYTES <= min(first_bytes_asked(server)) <= noted
    assert_right(server, bucket_name, context, product, prefix="")


def test_who_finds_another_at_the_same_object_fetches_it_alone(server, bucket_name, context, interrupted):
    wanted = interrupted()
    [note] = notes(context)
    left = note.with_suffix("")
    with left.open("r+b") as held:
        assert unfinished._lock(held.fileno(), left)
        product = stage_references([wanted], context)
    assert min(first_bytes_asked(server)) == 0
    assert_right(server, bucket_name, context, product, prefix="")
    assert left.exists() and note.exists()
    day_ago = time.time() - 25 * 3600
    os.utime(left, (day_ago, day_ago))
    stage_references([wanted], context)
    assert not left.exists() and not note.exists()
