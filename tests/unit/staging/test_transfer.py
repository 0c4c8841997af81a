import errno
import threading
import time
from pathlib import Path

import pytest

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.errors import StorageUnavailableError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import transfer
from trainyard.tasks.staging.listing import list_reference


@pytest.fixture
def arriving(tmp_path, monkeypatch):
    """Many small objects whose bytes come at once, as from S3, to be fetched to a directory."""
    (tmp_path / "data").mkdir()
    for n in range(transfer._MANY_OBJECTS):
        (tmp_path / "data" / f"{n:03}").write_text(str(n))
    listing = list_reference(Datastore(url=str(tmp_path / "data")).as_mount())
    monkeypatch.setattr(Location, "read_whole", lambda self, info: self.local_path.read_bytes())
    return lambda scratch: transfer.fetch_objects(listing, listing.objects, scratch, lambda num_bytes: None)


def test_who_fetches_also_writes_where_the_thread_that_writes_cannot_keep_up(
    arriving, scratch, syncs_together, monkeypatch
):
    write, take_over = transfer._write_file, transfer._Transfer.run_writer
    others_are_done, writers, written = threading.Event(), [], []
    num_kept = 5
    # Each of those who fetch may have found room for one more before any of them took it.
    num_others = transfer._MANY_OBJECTS - 1 - num_kept - transfer.NUM_TRANSFERS
    monkeypatch.setattr(transfer, "_MANY_ARRIVED", num_kept)

    def known(self):
        writers.append(threading.get_ident())
        take_over(self)

    def slow(path, data, *, sync):
        if threading.get_ident() in writers:
            assert others_are_done.wait(60)
        else:
            written.append(path)
        write(path, data, sync=sync)
        if len(written) >= num_others:
            others_are_done.set()

    monkeypatch.setattr(transfer._Transfer, "run_writer", known)
    monkeypatch.setattr(transfer, "_write_file", slow)
    given = [Path(file.path).read_text() for batch in arriving(scratch) for _, file in batch]
    assert sorted(given) == sorted(str(n) for n in range(transfer._MANY_OBJECTS))


@pytest.mark.parametrize("num_written", [0, 100, transfer._MANY_OBJECTS - 1])
def test_a_full_disk_ends_the_transfer_and_what_was_written_before_is_given(
    arriving, scratch, syncs_together, monkeypatch, num_written
):
    write, written, given = transfer._write_file, [], []
    monkeypatch.setattr(transfer, "_MANY_ARRIVED", transfer._MANY_OBJECTS)  # one thread writes them all

    def full(path, data, *, sync):
        if len(written) >= num_written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        write(path, data, sync=sync)

    monkeypatch.setattr(transfer, "_write_file", full)
    with pytest.raises(OSError, match="No space left"):
        for batch in arriving(scratch):
            given += [file.path for _, file in batch]
    assert sorted(given) == sorted(written)


def test_what_arrived_before_another_object_failed_is_written_and_given(arriving, scratch, syncs_together, monkeypatch):
    read, arrived, given = Location.read_whole, [], []

    def fails_once(self, info):
        if len(arrived) >= 100:
            raise StorageUnavailableError("503")
        arrived.append(info.key)
        return read(self, info)

    monkeypatch.setattr(Location, "read_whole", fails_once)
    with pytest.raises(StorageUnavailableError):
        for batch in arriving(scratch):
            given += [info.key for info, file in batch if Path(file.path).exists()]
    assert sorted(given) == sorted(arrived)


def test_the_error_that_came_first_is_raised(arriving, scratch, syncs_together, monkeypatch):
    read, disk_is_full = Location.read_whole, threading.Event()
    monkeypatch.setattr(transfer, "_MANY_ARRIVED", transfer._MANY_OBJECTS)

    def full(path, data, *, sync):
        raise OSError(errno.ENOSPC, "No space left on device")

    def stop(self):
        take_over(self)
        disk_is_full.set()

    def fails_later(self, info):
        if info.key == "000":
            return read(self, info)
        assert disk_is_full.wait(60)
        raise StorageUnavailableError("503")

    take_over = transfer._Transfer.stop
    monkeypatch.setattr(transfer._Transfer, "stop", stop)
    monkeypatch.setattr(transfer, "_write_file", full)
    monkeypatch.setattr(Location, "read_whole", fails_later)
    with pytest.raises(OSError, match="No space left"):
        list(arriving(scratch))


@pytest.fixture
def asked(monkeypatch):
    """The keys that are asked for, of which only the first five come before the transfer is stopped, or late."""
    keys, stopped = [], threading.Event()
    read, stop = Location.read_whole, transfer._Transfer.stop

    def slow(self, info):
        keys.append(info.key)
        if len(keys) > 5:
            stopped.wait(2)
        return read(self, info)

    monkeypatch.setattr(transfer._Transfer, "stop", lambda self: (stop(self), stopped.set()))
    monkeypatch.setattr(Location, "read_whole", slow)
    return keys


def test_nothing_is_asked_for_after_an_error(arriving, scratch, syncs_together, asked, monkeypatch):
    def full(path, data, *, sync):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_MANY_ARRIVED", transfer._MANY_OBJECTS)  # no error but that of the one who writes
    monkeypatch.setattr(transfer, "_write_file", full)
    with pytest.raises(OSError, match="No space left"):
        list(arriving(scratch))
    assert len(asked) < transfer._MANY_OBJECTS


def test_nothing_is_asked_for_where_what_is_finished_cannot_be_taken(
    arriving, scratch, syncs_together, asked, monkeypatch
):
    monkeypatch.setattr(transfer, "_TICK_S", 0.0)
    batches = arriving(scratch)
    next(batches)
    batches.close()
    assert len(asked) < transfer._MANY_OBJECTS


@pytest.fixture
def no_thread_left():
    """Every thread of a transfer has ended when the test has."""
    yield
    ended_by = time.monotonic() + 30
    while any(thread.name.startswith("stage") for thread in threading.enumerate()):
        assert time.monotonic() < ended_by
        time.sleep(0.05)


def test_threads_come_to_their_end_where_nobody_asks_for_what_is_finished(
    arriving, scratch, syncs_together, no_thread_left, monkeypatch
):
    run_writer, ended = transfer._Transfer.run_writer, threading.Event()
    monkeypatch.setattr(transfer, "_TICK_S", 0.0)
    monkeypatch.setattr(transfer._Transfer, "run_writer", lambda self: (run_writer(self), ended.set()))
    left_alone = arriving(scratch)
    next(left_alone)
    assert ended.wait(60)  # else the interpreter would wait for them when it ends
    left_alone.close()


@pytest.mark.parametrize("num_started", [0, 1, 5, transfer.NUM_TRANSFERS])
def test_a_thread_that_cannot_be_started_is_an_error_and_leaves_none(
    arriving, scratch, syncs_together, no_thread_left, monkeypatch, num_started
):
    start, started = threading.Thread.start, []

    def limited(thread):
        if len(started) >= num_started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    # Whoever is done before the next one begins takes over its work, so that fewer threads are needed.
    monkeypatch.setattr(Location, "read_whole", lambda self, info: time.sleep(0.1) or self.local_path.read_bytes())
    with pytest.raises(RuntimeError, match="start new thread"):
        list(arriving(scratch))
