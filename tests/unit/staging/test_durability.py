import errno
import hashlib
import os
import platform
import shutil
from pathlib import Path

import pytest

from trainyard.tasks.artifacts.location import Location
from trainyard.tasks.specs.datastore import Datastore
from trainyard.tasks.staging import durability, transfer
from trainyard.tasks.staging.listing import list_reference

NUM_BYTES = 5_000_000


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Fetch a file that is large enough to be synced while it arrives, and cannot be cloned."""
    monkeypatch.setattr(durability, "_SYNC_BYTES", 1_000_000)
    monkeypatch.setattr(Location, "share_version", lambda self, info, target: None)
    data = os.urandom(NUM_BYTES)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large.bin").write_bytes(data)
    (tmp_path / "scratch").mkdir()
    listing = list_reference(Datastore(url=str(tmp_path / "data")).as_mount())

    def run():
        batches = transfer.fetch_objects(listing, listing.objects, tmp_path / "scratch", lambda num_bytes: None)
        [(_, file)] = [fetched for batch in batches for fetched in batch]
        assert Path(file.path).read_bytes() == data and file.sha256 == hashlib.sha256(data).hexdigest()

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
    monkeypatch.setattr(Location, "share_version", lambda self, info, target: None)
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
                given.append(({file.path for _, file in batch}, len(calls)))
        except OSError as error:
            return given, error
        assert {Path(path).read_text() for batch, _ in given for path in batch} == {str(n) for n in range(num_files)}
        return given, calls

    return fetch


def test_many_small_files_are_synced_together_before_they_are_given(many, scratch, syncs_together):
    given, calls = many(scratch)
    assert calls and all(isinstance(call, set) for call in calls)
    for batch, num_calls in given:
        assert batch <= set().union(*calls[:num_calls])


def test_files_that_a_common_sync_could_not_bring_to_the_disk_are_not_given(many, scratch, syncs_together):
    given, error = many(scratch, lost=errno.EIO)
    assert error.errno == errno.EIO
    assert all(not batch for batch, _ in given)


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
