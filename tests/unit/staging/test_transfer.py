import errno
import hashlib
import os
import platform
import shutil
import threading
import time
from pathlib import Path

import pytest

from trainyard.tasks.artifacts.filesystem import Location
from trainyard.tasks.errors import StorageUnavailableError
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import durability, transfer
from trainyard.tasks.staging.listing import list_reference

NUM_BYTES = 5_000_000


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetch a file that is large enough to be synced while it arrives, and cannot be cloned."""
    monkeypatch.setattr(durability, "_SYNC_BYTES", 1_000_000)
    monkeypatch.setattr(Location, "clone_version", lambda self, info, target: False)
    data = os.urandom(NUM_BYTES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large.bin").write_bytes(data)
    (tmp_path / "scratch").mkdir()
    listing = list_reference(Datastore(url=str(tmp_path / "data")).as_mount())

    def run():
        batches = transfer.fetch_objects(listing, listing.objects, tmp_path / "scratch", lambda num_bytes: None)
        [(_, path, sha256)] = [fetched for batch in batches for fetched in batch]
        assert Path(path).read_bytes() == data and sha256 == hashlib.sha256(data).hexdigest()

    return run


def test_a_large_file_is_brought_to_the_disk_while_it_arrives(fetch, monkeypatch):
    synced, sync = [], os.fdatasync

    def spy(descriptor):
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", spy)
    fetch()
    assert synced and synced[0] < NUM_BYTES


def test_what_the_disk_says_of_the_early_sync_is_not_lost(fetch, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(OSError, match="No space left"):
        fetch()


@pytest.fixture(params=["in blocks", "whole"])
def many(request, tmp_path, monkeypatch):
    """As many small files as are synced together, fetched to a directory; gives what was given, and what was synced."""
    for n in range(transfer._MANY_OBJECTS):
        path = tmp_path / "data" / f"{n:03}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(n))
    listing = list_reference(Datastore(url=str(tmp_path / "data")).as_mount())
    monkeypatch.setattr(Location, "clone_version", lambda self, info, target: False)
    if request.param == "whole":
        monkeypatch.setattr(Location, "read_whole", lambda self, info: self.local_path.read_bytes())

    def fetch(scratch, num_files=transfer._MANY_OBJECTS, lost=0):
        calls, given, fsync = [], [], os.fsync

        def one(descriptor):
            calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def together(descriptor):
            calls.append({str(path) for path in scratch.iterdir() if path.stat().st_size})
            return lost if calls[-1] else 0

        monkeypatch.setattr(os, "fsync", one)
        monkeypatch.setattr(durability, "_syncfs", together)
        try:
            for batch in transfer.fetch_objects(listing, listing.objects[:num_files], scratch, lambda num_bytes: None):
                given.append(({path for _, path, _ in batch}, len(calls)))
        except OSError as error:
            return given, error
        assert {Path(path).read_text() for batch, _ in given for path in batch} == {str(n) for n in range(num_files)}
        return given, calls

    return fetch


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def syncs_together(monkeypatch):
    """Whatever the filesystem of the tests is: ``syncfs`` is known to all."""
    monkeypatch.setattr(durability, "_can_sync", lambda directory: True)


def test_many_small_files_are_synced_together_before_they_are_given(many, scratch, syncs_together):
    given, calls = many(scratch)
    assert calls and all(isinstance(call, set) for call in calls)
    for batch, num_calls in given:
        assert batch <= set().union(*calls[:num_calls])


def test_files_that_a_common_sync_could_not_bring_to_the_disk_are_not_given(many, scratch, syncs_together):
    given, error = many(scratch, lost=errno.EIO)
    assert error.errno == errno.EIO
    assert all(not batch for batch, _ in given)


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
    given = [Path(path).read_text() for batch in arriving(scratch) for _, path, _ in batch]
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
            given += [path for _, path, _ in batch]
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
            given += [info.key for info, path, _ in batch if Path(path).exists()]
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


def test_what_was_lost_before_is_not_held_against_a_staging(tmp_path, syncs_together, monkeypatch):
    results = iter([errno.EIO, 0])
    monkeypatch.setattr(durability, "_syncfs", lambda descriptor: next(results))
    with durability.syncing_together(tmp_path) as sync:
        sync([])


def test_a_file_without_its_blocks_is_not_on_the_disk(tmp_path, syncs_together):
    (tmp_path / "whole").write_bytes(os.urandom(20_000))
    with (tmp_path / "hole").open("wb") as out:
        out.truncate(20_000)
    if (tmp_path / "hole").stat().st_blocks:
        pytest.skip(f"the filesystem of {tmp_path} has no holes")
    with durability.syncing_together(tmp_path) as sync:
        sync([str(tmp_path / "whole")])
        with pytest.raises(OSError, match=r"Not all of it is on the disk: '.*hole'"):
            sync([str(tmp_path / "whole"), str(tmp_path / "hole")])


def test_a_few_files_are_synced_one_by_one(many, scratch):
    given, calls = many(scratch, num_files=3)
    assert sorted(calls) == sorted(path for batch, _ in given for path in batch)


def test_where_the_filesystem_tells_no_errors_every_file_is_synced(many):
    memory = Path("/dev/shm")
    if not memory.is_dir() or durability._filesystem(memory) != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm")
    scratch = memory / f"trainyard-{os.getpid()}"
    scratch.mkdir()
    try:
        given, calls = many(scratch)
        assert sorted(calls) == sorted(path for batch, _ in given for path in batch)
    finally:
        shutil.rmtree(scratch)


@pytest.mark.parametrize(
    ("release", "filesystem", "expected"),
    [
        ("6.1.0-28-amd64", "ext4", True),
        ("5.17-rc1+", "xfs", True),
        ("5.15.0-91-generic", "ext4", False),
        ("6.1.0", "overlay", False),
        ("unheard-of", "ext4", False),
    ],
)
def test_a_common_sync_is_relied_upon_where_it_tells_its_errors(tmp_path, monkeypatch, release, filesystem, expected):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: release)
    monkeypatch.setattr(durability, "_filesystem", lambda directory: filesystem)
    assert durability._can_sync(tmp_path) is expected
